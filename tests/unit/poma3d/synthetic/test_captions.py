"""The grammar of captions, and reading counts back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poma3d.evaluate.probe import named_classes
from poma3d.synthetic.captions import (
    CLASS_WORDS,
    Seen,
    class_counts,
    room_phrase,
    scene_captions,
    view_captions,
    vocabulary,
    words,
)
from poma3d.synthetic.furniture import CLASSES
from poma3d.synthetic.groups import ROOM_KINDS


@st.composite
def seen(draw: st.DrawFn) -> Seen:
    kind = CLASSES[draw(st.sampled_from(sorted(CLASSES)))]
    word = draw(st.sampled_from([v.word for v in kind.variants]))
    return Seen(kind.name, word, draw(st.integers(10, 900)), draw(st.floats(0, 1)), draw(st.floats(0.5, 7)))


@given(st.lists(seen(), max_size=18), st.sampled_from(sorted(ROOM_KINDS)), st.integers(0, 99))
def test_any_view_can_be_described_and_read_back(pieces: list[Seen], kind: str, seed: int) -> None:
    truth = {name: sum(p.name == name for p in pieces) for name in {p.name for p in pieces}}
    views = view_captions(kind, pieces, np.random.default_rng(seed))
    scenes = scene_captions(room_phrase(kind, (4, 5, 2.5)), pieces, np.random.default_rng(seed))
    for captions in (views, scenes):
        assert class_counts(captions[:1]) == truth
        assert class_counts(captions) == truth
        assert named_classes(captions, CLASS_WORDS).tolist() == [c in truth for c in sorted(CLASSES)]
        assert {word for caption in captions for word in words(caption)} <= set(vocabulary())
        assert all(kind in caption and "  " not in caption for caption in captions)


def test_left_is_left_and_behind_is_behind() -> None:
    left = Seen("bed", "wide", 300, 0.2, 4.0)
    right = Seen("desk", "long", 200, 0.8, 2.0)
    texts = {
        c for seed in range(40) for c in view_captions("bedroom", [right, left], np.random.default_rng(seed))
    }
    assert {t for t in texts if "left of" in t or "right of" in t} == {
        "in a bedroom a wide bed is left of a long desk",
        "in a bedroom a long desk is right of a wide bed",
    }
    assert {t for t in texts if "behind" in t or "at the back" in t} == {
        "a wide bed behind a long desk in a bedroom",
        "a wide bed at the back and a long desk at the front in a bedroom",
    }


def test_pieces_of_one_size_are_counted_together() -> None:
    pieces = [
        Seen("shelf", "tall", 90, 0.1, 3),
        Seen("shelf", "tall", 80, 0.5, 3),
        Seen("shelf", "low", 70, 0.9, 3),
    ]
    captions = view_captions("library", pieces, np.random.default_rng(0))
    assert captions[0] == "a library with three shelves"
    assert captions[2] == "two tall shelves and a low shelf in a library"


def test_an_empty_view_still_has_captions() -> None:
    assert view_captions("office", [], np.random.default_rng(0)) == [
        "an empty corner of an office",
        "a view of an office",
    ]
    assert scene_captions("small office", [], np.random.default_rng(0)) == ["an empty small office"]


@pytest.mark.parametrize(
    ("size", "phrase"),
    [
        ((3, 3.5, 2.5), "small den"),
        ((4, 5, 2.5), "den"),
        ((6, 7, 2.5), "large den"),
        ((3, 6, 2.5), "narrow den"),
    ],
)
def test_room_sizes_have_words(size: tuple[float, float, float], phrase: str) -> None:
    assert room_phrase("den", size) == phrase


def test_hand_written_captions_are_read_too() -> None:
    captions = ["A wooden table with four chairs, and a shelf", "two tall shelves"]
    assert class_counts(captions) == {"table": 1, "chair": 4, "shelf": 2}
