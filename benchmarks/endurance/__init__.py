"""What grows in a long run."""
