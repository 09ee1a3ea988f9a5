"""`poma submit`: send a job to a cluster and follow it."""
