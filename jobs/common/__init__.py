"""What several commands share. Imports no command."""
