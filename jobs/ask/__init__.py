"""`poma ask`: a trained head answers questions about a scene."""
