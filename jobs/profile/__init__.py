"""`poma profile`: where the time and the memory of a job's steps go."""
