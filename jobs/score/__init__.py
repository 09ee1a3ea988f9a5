"""`poma score`: score predictions by the published protocols."""
