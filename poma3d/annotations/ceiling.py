"""What retrieval by utterance can reach at most, because utterances repeat."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

from poma3d.annotations.rows import Utterance

SCAN = re.compile(r"(scene\d{4})_\d{2}")


def room_of(scene_id: str) -> str:
    """The room of a ScanNet scan: `scene0011` of `scene0011_01`; another id is its own room."""
    found = SCAN.fullmatch(scene_id)
    return found[1] if found else scene_id


def scan_of(scene_id: str) -> str:
    """The scan itself."""
    return scene_id


def ceiling(rows: Sequence[Utterance], place_of: Callable[[str], str]) -> float:
    """The greatest R@1, from 0 to 1, of one query per row: of a text that several places have, no answer is
    right for more rows than its most frequent place has.

    Args:
        rows: one at least.
        place_of: `scan_of` or `room_of`.
    """
    places: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        places[row.text.strip()][place_of(row.scene_id)] += 1
    return sum(max(found.values()) for found in places.values()) / len(rows)
