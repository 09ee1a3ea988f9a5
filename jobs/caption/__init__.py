"""`poma caption`: captions from a vision-language model."""
