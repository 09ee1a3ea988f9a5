"""A language model that answers from a scene, for transformers' Auto classes."""
