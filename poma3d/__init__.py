"""poma3d: the model, usable without the platform."""
