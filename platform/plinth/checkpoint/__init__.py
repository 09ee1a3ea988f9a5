"""Checkpoints that are committed or not there, readable at any world size."""
