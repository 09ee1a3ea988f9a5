"""`poma export`: the target encoder as safetensors."""
