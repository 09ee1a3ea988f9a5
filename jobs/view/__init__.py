"""`poma view`: a scene as a page that can be turned, zoomed and walked through."""
