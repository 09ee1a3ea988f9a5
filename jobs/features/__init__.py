"""`poma features`: what a frozen encoder says of every view, once."""
