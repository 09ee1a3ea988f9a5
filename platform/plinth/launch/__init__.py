"""Starts the stages of a job on Ray Train workers or in this process."""
