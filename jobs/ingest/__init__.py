"""`poma ingest`: scans or rooms become point-map shards."""
