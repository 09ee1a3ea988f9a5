"""`poma shards`: look into a data set."""
