"""Sweeps: many runs of one job with other values, scheduled by Ray Tune."""
