"""`poma locate`: where in a scene is what a text says."""
