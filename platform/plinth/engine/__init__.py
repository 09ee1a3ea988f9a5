"""One optimizer step over the global batch, through DeepSpeed ZeRO."""
