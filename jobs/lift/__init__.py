"""`poma lift`: depth and camera of captioned images."""
