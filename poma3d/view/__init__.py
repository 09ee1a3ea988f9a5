"""Scenes made ready to be looked at."""
