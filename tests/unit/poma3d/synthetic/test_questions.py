"""Questions about rooms are true, balanced where they say so, and the same again from the same seed."""

from __future__ import annotations

import math
from collections import Counter
from functools import cache

import numpy as np
import pytest

from poma3d.annotations.rows import Question
from poma3d.synthetic.captions import NUMBERS
from poma3d.synthetic.config import RoomsConfig
from poma3d.synthetic.furniture import CLASSES
from poma3d.synthetic.questions import (
    COLOUR,
    COUNT,
    EIGHT,
    EIGHT_DIRECTIONS,
    EXISTENCE,
    FOUR,
    FOUR_DIRECTIONS,
    ROOM,
    SIDE,
    TYPES,
    ask,
    direction,
    room_of,
)  # fmt: skip
from poma3d.synthetic.rooms import RoomsReader

ROOMS = 60


@cache
def scenes() -> dict[str, list[str]]:
    reader = RoomsReader(RoomsConfig(rooms=ROOMS, image_size=32, colour=False))
    return {scene_id: list(reader.read(scene_id).captions) for scene_id in reader.scene_ids()}


@cache
def asked() -> list[Question]:
    return ask(scenes(), per_type=6, seed=0)


def of(kind: str) -> list[Question]:
    found = [question for question in asked() if question.question_type == kind]
    assert found
    return found


def pieces(question: Question) -> Counter[str]:
    room, _ = room_of(question.scene_id)
    return Counter(solid.piece.name for solid in room.solids if solid.piece.name is not None)


def test_counts_are_those_of_the_room() -> None:
    plural = {kind.plural: kind.name for kind in CLASSES.values()}
    for question in of(COUNT):
        word = question.question.removeprefix("how many ").removesuffix(" are there?")
        assert question.answers == (NUMBERS[pieces(question)[plural[word]]],)


def test_existence_is_true_and_the_class_alone_tells_little() -> None:
    yes: Counter[str] = Counter()
    all_of: Counter[str] = Counter()
    for question in of(EXISTENCE):
        name = question.question.removeprefix("is there a ").removesuffix("?")
        there = pieces(question)[name] > 0
        assert question.answers == ("yes" if there else "no",)
        yes[name] += there
        all_of[name] += 1
    by_class = sum(max(yes[name], all_of[name] - yes[name]) for name in all_of) / sum(all_of.values())
    assert by_class < 0.7


@pytest.mark.parametrize(
    ("kind", "names"), [(FOUR, FOUR_DIRECTIONS), (EIGHT, EIGHT_DIRECTIONS), (SIDE, None)]
)
def test_directions_are_those_of_the_room(kind: str, names: tuple[str, ...] | None) -> None:
    """By the pose that the question states, as complex numbers rather than angles."""
    for question in of(kind):
        room, _ = room_of(question.scene_id)
        place = {s.piece.name: complex(s.x, s.y) for s in room.solids if s.piece.name is not None}
        assert question.position is not None
        assert question.orientation is not None
        here = complex(*question.position[:2])
        faced = question.situations[0].split("facing the ")[1].removesuffix(".")
        wanted = next(
            n
            for n in question.question.rstrip("?").replace(" left, right or behind", "").split()
            if n in CLASSES
        )
        z, w = question.orientation[2:]
        looks = complex(w, z) ** 2  # half the angle, twice
        ahead = place[faced] - here
        assert abs(looks - ahead / abs(ahead)) < 1e-9
        turned = (place[wanted] - here) / looks  # real: ahead, imaginary: left
        if names is not None:
            steps = [turned.real * math.cos(a) + turned.imag * math.sin(a)
                     for a in (2 * math.pi * i / len(names) for i in range(len(names)))]  # fmt: skip
            assert question.answers == (names[int(np.argmax(steps))],)
        elif abs(turned.imag) > abs(turned.real):
            assert question.answers == ("left" if turned.imag > 0 else "right",)
        else:
            assert question.answers == ("behind",)
            assert turned.real < 0


def test_directions_near_a_border_are_not_asked() -> None:
    assert direction(44.0, 4) is None
    assert direction(36.0, 4) == 0
    assert direction(-90.0, 4) == 3
    assert direction(180.0, 8) == direction(-180.0, 8) == 4


def test_room_types_and_wall_colours_are_the_rooms() -> None:
    for question in of(ROOM):
        assert question.answers == (room_of(question.scene_id)[0].kind,)
    assert len({question.answers for question in of(COLOUR)}) == 5


def test_the_same_seed_asks_the_same_and_another_does_not() -> None:
    assert ask(scenes(), 6, 0) == asked()
    assert ask(scenes(), 6, 1) != asked()
    assert {q.question_type for q in asked()} == set(TYPES)
    ids = [question.question_id for question in asked()]
    assert len(set(ids)) == len(ids)


def test_what_is_no_room_is_refused() -> None:
    with pytest.raises(ValueError, match="no procedural room"):
        ask({"scene0000_00": ["a kitchen"]}, 1, 0)
    with pytest.raises(ValueError, match="does not have"):
        ask({"room-0-0000000": ["an office with ten pianos"]}, 1, 0)
    with pytest.raises(ValueError, match="no questions of the type"):
        ask(scenes(), 1, 0, ["smell"])
