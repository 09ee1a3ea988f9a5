"""`poma prove-resume`: kills and resizes a job and compares the results."""
