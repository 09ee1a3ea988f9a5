"""Captions of the synthetic rooms, in a small closed vocabulary, and reading them back.

Captions say what is really in view: class, count, size word, room type, left/right and near/far.
They never name a colour, which geometry cannot see. The *first* caption of a view or a scene is the
complete one: it names every class in view with its count, so `class_counts` recovers the labels from
the stored strings alone.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from poma3d.sample import Classes
from poma3d.synthetic.furniture import CLASSES
from poma3d.synthetic.groups import ROOM_KINDS

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
           "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
           "twenty")  # fmt: skip
"""Counts in words; what exceeds the last one is called by it."""
ROOM_SIZES = ("small", "large", "narrow")
SMALL_ROOM_M2, LARGE_ROOM_M2 = 14.0, 28.0
NARROW_ROOM = 1.5
"""A room whose sides differ by more than this factor is narrow."""
SIDE_MARGIN = 0.12
"""Share of the image's width by which two pieces must be apart to be left and right of each other."""
DEPTH_MARGIN_M = 0.9
"""How much deeper than another a piece must be to be behind it."""
NAMED_SIZES = 3
"""How many pieces a caption of sizes names."""

_GLUE = ("a", "an", "and", "with", "in", "the", "of", "this", "there", "is", "are", "view", "showing",
         "empty", "corner", "left", "right", "behind", "at", "back", "front", "has")  # fmt: skip
CLASS_WORDS: Classes = {kind.name: [kind.name, kind.plural] for kind in CLASSES.values()}
_CLASS_OF = {word: name for name, found in CLASS_WORDS.items() for word in found}
_COUNT_OF = {word: count for count, word in enumerate(NUMBERS)} | {"a": 1, "an": 1}


def vocabulary() -> list[str]:
    """Every word that a caption can hold, sorted: enough for a word-level tokenizer."""
    words = {*_GLUE, *NUMBERS[1:], *ROOM_SIZES, *_CLASS_OF}
    words |= {word for kind in ROOM_KINDS for word in kind.split()}
    words |= {v.word for kind in CLASSES.values() for v in kind.variants if v.word}
    return sorted(words)


def words(caption: str) -> list[str]:
    """The words of a caption, lower case, without punctuation."""
    return re.findall(r"[a-z]+", caption.lower())


def class_counts(captions: Iterable[str]) -> dict[str, int]:
    """Classes that captions of one view (or scene) name, with the largest count that any gives.

    Over all captions of a view this equals the truth, as the first one is complete.
    """
    out: Counter[str] = Counter()
    for caption in captions:
        count = 1
        for word in words(caption):
            if word in _COUNT_OF:
                count = _COUNT_OF[word]
            elif word in _CLASS_OF:
                name = _CLASS_OF[word]
                out[name] = max(out[name], count)
                count = 1
    return dict(out)


@dataclass(frozen=True)
class Seen:
    """One piece in view."""

    name: str
    word: str
    """Its size word; may be empty."""
    pixels: int
    column: float
    """Mean column as a share of the image's width."""
    depth_m: float
    """Mean depth."""


def room_phrase(kind: str, size: tuple[float, float, float]) -> str:
    """Room type with a size word where it has one: "large kitchen"."""
    width, depth = sorted(size[:2])
    if depth > NARROW_ROOM * width:
        return f"narrow {kind}"
    if width * depth < SMALL_ROOM_M2:
        return f"small {kind}"
    return f"large {kind}" if width * depth > LARGE_ROOM_M2 else kind


def view_captions(kind: str, seen: Sequence[Seen], rng: np.random.Generator) -> list[str]:
    """Captions of one view in a room of type `kind`, the complete one first; never empty."""
    if not seen:
        return [f"an empty corner of {_a(kind)}", f"a view of {_a(kind)}"]
    listed = _join(_counted(seen, rng))
    captions = [f"{_a(kind)} with {listed}", f"a view of {_a(kind)} showing {_join(_counted(seen, rng))}"]
    captions.append(f"{_join(_sized(seen))} in {_a(kind)}")
    beside = _side_by_side(seen, rng)
    if beside:
        captions.append(f"in {_a(kind)} {beside}")
    behind = _one_behind_another(seen, rng)
    if behind:
        captions.append(f"{behind} in {_a(kind)}")
    return captions


def scene_captions(phrase: str, pieces: Sequence[Seen], rng: np.random.Generator) -> list[str]:
    """Captions of a room from the pieces that at least one of its views shows, the complete one first.

    Args:
        phrase: of `room_phrase`.
        pieces: each piece once, with its largest number of pixels.
        rng: for the order of words.
    """
    if not pieces:
        return [f"an empty {phrase}"]
    captions = [
        f"{_a(phrase)} with {_join(_counted(pieces, rng))}",
        f"there {'is' if _first_is_one(pieces) else 'are'} {_join(_counted(pieces))} in this {phrase}",
        f"{_a(phrase)} with {_join(_sized(pieces, len(pieces)))}",
    ]
    captions.append(f"this {phrase} has {_join(_counted(pieces, rng))}")
    return captions


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _number(count: int, name: str, word: str = "") -> str:
    """ "a tall shelf", "three chairs"."""
    if count == 1:
        return _a(f"{word} {name}".strip())
    plural = CLASSES[name].plural
    return f"{NUMBERS[min(count, len(NUMBERS) - 1)]} {word} {plural}".replace("  ", " ")


def _join(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _counted(seen: Sequence[Seen], rng: np.random.Generator | None = None) -> list[str]:
    """All classes with their counts, most pixels first, or shuffled by `rng`."""
    counts = Counter(piece.name for piece in seen)
    pixels: Counter[str] = Counter()
    for piece in seen:
        pixels[piece.name] += piece.pixels
    names = [name for name, _ in pixels.most_common()]
    if rng is not None:
        names = [names[i] for i in rng.permutation(len(names))]
    return [_number(counts[name], name) for name in names]


def _first_is_one(seen: Sequence[Seen]) -> bool:
    return _counted(seen)[0].split()[0] in ("a", "an")


def _sized(seen: Sequence[Seen], limit: int = NAMED_SIZES) -> list[str]:
    """The biggest pieces with size words, equal ones counted together."""
    groups: Counter[tuple[str, str]] = Counter()
    for piece in sorted(seen, key=lambda s: -s.pixels)[:limit]:
        groups[piece.name, piece.word] += 1
    return [_number(count, name, word) for (name, word), count in groups.items()]


def _pick(pairs: list[tuple[Seen, Seen]], rng: np.random.Generator) -> tuple[Seen, Seen] | None:
    """One of the pairs of different classes, by chance."""
    pairs = [(a, b) for a, b in pairs if a.name != b.name]
    return pairs[int(rng.integers(len(pairs)))] if pairs else None


def _side_by_side(seen: Sequence[Seen], rng: np.random.Generator) -> str | None:
    pair = _pick([(a, b) for a in seen for b in seen if a.column < b.column - SIDE_MARGIN], rng)
    if pair is None:
        return None
    left, right = (_number(1, p.name, p.word) for p in pair)
    if rng.random() < 0.5:
        return f"{left} is left of {right}"
    return f"{right} is right of {left}"


def _one_behind_another(seen: Sequence[Seen], rng: np.random.Generator) -> str | None:
    pair = _pick([(a, b) for a in seen for b in seen if a.depth_m > b.depth_m + DEPTH_MARGIN_M], rng)
    if pair is None:
        return None
    far, near = (_number(1, p.name, p.word) for p in pair)
    if rng.random() < 0.5:
        return f"{far} at the back and {near} at the front"
    return f"{far} behind {near}"
