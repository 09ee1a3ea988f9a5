"""Questions and places of the demo's rooms, asked of its encoder."""
