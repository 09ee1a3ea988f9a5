"""`poma demo`: from procedural rooms to a report."""
