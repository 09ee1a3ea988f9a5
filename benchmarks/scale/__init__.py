"""Streaming beyond this machine, on paper with measured costs: `python -m benchmarks.scale --help`."""
