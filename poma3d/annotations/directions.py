"""MSNN's directions: four or eight classes, counter-clockwise from straight ahead.

The files number them 0 to 4 and 0 to 8: the last is straight ahead again, where the angle wraps. The texts
are as published, with their typo; MSR3D's code numbers its eight classes in another order.
"""

from __future__ import annotations

FOUR = ("move forward", "turn left", "move backward", "turn right")
EIGHT = (
    "move forward", "turn to foward left", "turn left", "turn to back left",
    "move backward", "turn to back right", "turn right", "turn to foward right",
)  # fmt: skip
TEXTS = {len(FOUR): FOUR, len(EIGHT): EIGHT}
QUESTION = "What action should I take next step?"
"""The released file has no question; this is what its authors ask."""
TYPO = "foward"


def direction_class(number: int, directions: int) -> int:
    """The class of a number of the file.

    Args:
        directions: 4 or 8.

    Raises:
        ValueError: it is not in 0 to `directions`.
    """
    if not 0 <= number <= directions:
        raise ValueError(f"direction {number} is not among 0 to {directions}")
    return number % directions


def direction_of(text: str, directions: int) -> int | None:
    """The class of a text, spelt with the published typo or without; None for another text."""
    plain = _spelt(text)
    return next((i for i, known in enumerate(TEXTS[directions]) if _spelt(known) == plain), None)


def _spelt(text: str) -> str:
    return " ".join(text.lower().split()).replace(TYPO, "forward")
