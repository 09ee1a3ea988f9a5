"""What the platform costs beside the model, step by step."""
