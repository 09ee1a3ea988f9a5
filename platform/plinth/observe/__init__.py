"""What a run records of itself: metrics, time ledger, logs, failures, incidents."""
