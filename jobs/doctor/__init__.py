"""`poma doctor`: finds what would go wrong before anything is paid for."""
