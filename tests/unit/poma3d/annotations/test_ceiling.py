"""The ceiling on R@1 that repeated utterances put there."""

from __future__ import annotations

import pytest

from poma3d.annotations.ceiling import ceiling, room_of, scan_of
from poma3d.annotations.rows import Utterance


def test_rooms_of_scans() -> None:
    scans = ["scene0011_01", "scene0011", "0a4b8ef6-a83a", "scene0011_001"]
    assert [room_of(scan) for scan in scans] == ["scene0011", "scene0011", "0a4b8ef6-a83a", "scene0011_001"]


def test_by_hand() -> None:
    """A text of two scans of one room, of which one has it twice; a text of two rooms; a text of its own."""
    texts = [
        ("scene0000_00", "a"), ("scene0000_00", "a "), ("scene0000_01", "a"),
        ("scene0001_00", "b"), ("scene0002_00", "b"), ("scene0003_00", "c"),
    ]  # fmt: skip
    rows = [Utterance(scene, text) for scene, text in texts]
    assert ceiling(rows, scan_of) == pytest.approx((2 + 1 + 1) / 6)
    assert ceiling(rows, room_of) == pytest.approx((3 + 1 + 1) / 6)
