"""Heads on frozen view features: questions with a closed list of answers, and directions."""
