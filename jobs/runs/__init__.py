"""`poma runs`: list, show, read and stop runs."""
