"""Text from data on its way to a terminal or a log: escape codes would colour, move or retitle it, and a line
break in an id would make a line of its own."""

from __future__ import annotations

KEPT = "\n\t"


def printable(text: str) -> str:
    """A text from data in one line: line breaks, escape codes and what is no Unicode as backslash escapes."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def without_codes(text: str) -> str:
    """The same for a text of several lines, which stay."""
    return "".join(c if c in KEPT else printable(c) for c in text)
