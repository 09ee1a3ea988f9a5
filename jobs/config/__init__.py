"""`poma config`: a job file as the commands see it."""
