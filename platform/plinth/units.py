"""How sizes, durations and counts are shown."""

MIB = 2**20
GIB = 2**30
SECONDS_PER_HOUR = 3600


def counted(number: int, noun: str) -> str:
    """`1 worker`, `2 workers`; for nouns that take an s (`process` takes an es)."""
    many = "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{many if number != 1 else ''}"
