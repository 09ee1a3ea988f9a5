"""The tables of the paper and of its follow-up beside our figures: `docs/benchmarks.md`."""
