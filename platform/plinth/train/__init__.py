"""The training loop of a stage, from storage to metrics."""
