"""`poma pretrain`: the warm-up and the main stage."""
