"""What a language model on scene tokens learns, and what its training costs."""
