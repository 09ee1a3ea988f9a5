"""`poma embed`: a teacher's embeddings in the shards."""
