"""`poma sweep`: search the values of a job with Ray Tune."""
