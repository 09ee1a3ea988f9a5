"""From storage to batches: manifest, shards, plan, stream, batches."""
