"""What heads and language models see of scenes: views, patches, or cells of space with their places."""
