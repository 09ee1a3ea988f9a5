"""Entry points: where model and platform meet."""
