"""The published zero-shot benchmarks of `poma evaluate`: annotation files met with a data set's features."""
