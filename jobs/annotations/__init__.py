"""`poma annotations`: look into annotation files of the public benchmarks."""
