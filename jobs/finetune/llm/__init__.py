"""`poma finetune` of a language model that answers from a scene's tokens."""
