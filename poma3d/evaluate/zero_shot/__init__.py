"""Published zero-shot benchmarks as pure functions on features: scenes and views found by text, room types,
places from which a text was said. Every protocol has a name, and a tie is never luck.
"""
