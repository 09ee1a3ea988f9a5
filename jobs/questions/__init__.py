"""`poma questions`: true questions about procedural rooms."""
