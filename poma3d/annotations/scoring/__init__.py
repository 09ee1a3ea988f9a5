"""Scores of predictions by the published protocols, each under its own name. Pure functions of texts and
numbers."""
