"""`poma evaluate`: zero-shot retrieval and a linear probe."""
