"""Annotation files of the public benchmarks, each read into one of three rows: a question, an utterance, a
text with the camera it was said from. Pure Python and NumPy."""
