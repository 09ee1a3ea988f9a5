"""Streaming alone, beside what one would use instead: `python -m benchmarks.streaming --help`."""
