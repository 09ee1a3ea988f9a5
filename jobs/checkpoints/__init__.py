"""`poma checkpoints`: look after a run's checkpoints."""
