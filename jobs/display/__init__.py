"""Pages and tables for people. Imports no command."""
