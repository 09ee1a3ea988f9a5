"""`poma plan`: memory, time, storage and cost of a job."""
