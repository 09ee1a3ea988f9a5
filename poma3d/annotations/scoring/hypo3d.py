"""Hypo3D's metric: both texts normalised, then exact match and partial match, as in its metric_compute.

Its oddities decide figures and are kept: `top` is `front` and `bottom` is `back`; `near`, `next` and `corner`
vanish, so `near the corner` is empty, and an empty prediction matches it; `left/right` becomes `leftright`;
once a number was met, later words that are no numbers vanish (`two chairs` is `2`, `chairs two` is `chairs
2`); numbers are read word by word (`twenty one` is `20 1`, `point` is `0`). The scripts that its authors ran
per model normalise otherwise; this is the one that they call the metric. A classifier's accuracy on 637
classes is not comparable with it.
"""

from __future__ import annotations

import re

from poma3d.annotations.scoring.cleaning import UNITS

NOTHING = ("to the", "by the", "on the", "near", "next", "corner")
PHRASES = {
    "front": ("top", "front side", "in front of", "north", "forward", "front of"),
    "back": ("behind", "bottom", "back side", "south", "backward", "bottom of", "back of"),
    "left": ("left side", "on the left of", "on the left", "west", "left of"),
    "right": ("right side", "on the right of", "on the right", "east", "right of"),
    "front left": ("front and left", "northwest"),
    "front right": ("front and right", "in front and to the right", "northeast"),
    "back left": ("back and left", "behind and to the left", "southwest"),
    "back right": ("back and right", "behind and to the right", "southeast"),
}
"""What phrases become; there is none for `in front and to the left`."""
REPLACED = {
    **dict.fromkeys(NOTHING, ""),
    **{phrase: direction for direction, phrases in PHRASES.items() for phrase in phrases},
}
PHRASE = re.compile(rf"\b(?:{'|'.join(sorted(REPLACED, key=len, reverse=True))})\b")
"""The longest phrase wins; what was put in is not looked at again."""
ARTICLE = re.compile(r"\b(?:a|an|the)\b")
PUNCTUATION = re.compile(r"[^a-zA-Z0-9\s]")
NUMBERS = {
    **{word: number for number, word in enumerate(UNITS)},
    "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90,
    "hundred": 100, "thousand": 1_000, "million": 1_000_000, "billion": 1_000_000_000, "point": 0,
}  # fmt: skip
"""Single words as word2number 1.1 reads them; digits count, too."""


def normalise(text: str) -> str:
    """A text as it is compared."""
    text = PHRASE.sub(lambda found: REPLACED[found[0]], text.lower())
    text = PUNCTUATION.sub("", ARTICLE.sub("", text).strip())
    kept: list[str] = []
    numbers = False
    for word in text.split():
        number = word.lstrip("0") or "0" if word.isdigit() else NUMBERS.get(word)
        if number is not None:
            kept.append(str(number))
            numbers = True
        elif not numbers:
            kept.append(word)
    return " ".join(kept)


def exact(predicted: str, answer: str) -> float:
    """1 where the normalised texts are equal, else 0."""
    return float(normalise(predicted) == normalise(answer))


def partial(predicted: str, answer: str) -> float:
    """The distinct words that both have, over the words of the answer with repeats; 0 for an empty answer. An
    answer with a repeated word never reaches 1."""
    reference = normalise(answer).split()
    if not reference:
        return 0.0
    return len(set(normalise(predicted).split()) & set(reference)) / len(reference)
