"""Questions about the synthetic rooms with true answers, and a control that geometry cannot answer.

    type         question                                        answers
    count        how many chairs are there?                      one, two, ...
    existence    is there a piano?                               yes, no
    side         is the desk left of me, right or behind?        left, right, behind
    four         which way do I turn to face the desk?           forward, left, backward, right
    eight        in which of eight directions is the desk?       forward, forward left, left, ...
    (counter-clockwise) room         what kind of room is this?                      bedroom, kitchen, ...
    colour       what colour are the walls?                      cream, ice, ...: drawn apart from all
    geometry

`side`, `four` and `eight` are asked from a situation: somebody stands in the middle of the room and faces a
piece. Pieces that are asked for are in view, and are the only ones of their class. Existence is asked so that
half of the questions about each class are true, so the class alone tells nothing.

A room's truth is its seed's: it is furnished again from the id, and its captions say what its views show.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from poma3d.annotations.rooms import FRAME
from poma3d.annotations.rows import Quaternion, Question, Vector
from poma3d.synthetic.captions import NUMBERS, class_counts
from poma3d.synthetic.furniture import CLASSES
from poma3d.synthetic.layout import WALL_COLOURS, Room, furnish
from poma3d.synthetic.raycast import Solid

COUNT, EXISTENCE, SIDE, FOUR, EIGHT, ROOM, COLOUR = (
    "count", "existence", "side", "four", "eight", "room", "colour",
)  # fmt: skip
TYPES = (COUNT, EXISTENCE, SIDE, FOUR, EIGHT, ROOM, COLOUR)
FOUR_DIRECTIONS = ("forward", "left", "backward", "right")
EIGHT_DIRECTIONS = (
    "forward", "forward left", "left", "backward left",
    "backward", "backward right", "right", "forward right",
)  # fmt: skip
"""Counter-clockwise from ahead, as MSNN counts them."""
WALL_WORDS = ("cream", "ice", "mint", "rose", "lavender")
"""Of `layout.WALL_COLOURS`, in its order."""
FRONT_DEG = 45.0
"""`side` is not asked about what is ahead."""
MARGIN_DEG = 7.0
"""A direction nearer than this to the border between two answers is not asked."""
NEAR_M = 0.6
"""Nor is one of a piece nearer than this to where somebody stands."""
OTHER_ROOMS = 7919
"""Sets the questions' randomness apart from that of the rooms."""


@dataclass(frozen=True)
class Asked:
    """A question before it has its scene and number."""

    kind: str
    text: str
    answer: str
    situation: str = ""
    position: Vector | None = None
    orientation: Quaternion | None = None


def ask(
    scenes: Mapping[str, Sequence[str]], per_type: int, seed: int, kinds: Sequence[str] = TYPES
) -> list[Question]:
    """Questions about rooms.

    Args:
        scenes: id of a room (`room-SEED-INDEX`) -> its scene captions, as its data set holds them.
        per_type: most questions of each type about a room.
        seed: of the choice of what is asked.
        kinds: which types.

    Raises:
        ValueError: an id that is not a room's, captions that are not that room's, or an unknown type.
    """
    unknown = sorted(set(kinds) - set(TYPES))
    if unknown:
        raise ValueError(f"no questions of the type {unknown[0]!r}; there are {', '.join(TYPES)}")
    seen = {scene_id: class_counts(captions) for scene_id, captions in scenes.items()}
    frequency = Counter(name for counts in seen.values() for name in counts)
    share = {name: frequency[name] / max(len(seen), 1) for name in CLASSES}
    questions = []
    for scene_id, counts in seen.items():
        room, index = room_of(scene_id)
        rng = np.random.default_rng([seed, index, OTHER_ROOMS])
        true = Counter(solid.piece.name for solid in room.solids if solid.piece.name is not None)
        if any(counts[name] > true[name] for name in counts):
            raise ValueError(f"the captions of {scene_id} name furniture that the room does not have")
        asked = [each for kind in TYPES for each in _of_type(kind, room, counts, true, share, per_type, rng)]
        numbered = enumerate(each for each in asked if each.kind in kinds)
        questions += [_question(scene_id, number, each) for number, each in numbered]
    return questions


def room_of(scene_id: str) -> tuple[Room, int]:
    """A room furnished again from its id, and its index.

    Raises:
        ValueError: not an id of a room.
    """
    match = re.fullmatch(r"room-(\d+)-(\d+)", scene_id)
    if match is None:
        raise ValueError(f"{scene_id!r} is no procedural room; ids look like 'room-0-0000007'")
    return furnish(np.random.default_rng([int(match[1]), int(match[2])])), int(match[2])


def direction(angle_deg: float, count: int) -> int | None:
    """Which of `count` equal sectors an angle is in, counter-clockwise, 0 ahead; None near a border."""
    width = 360.0 / count
    sector = round(angle_deg / width)
    if abs(angle_deg - sector * width) > width / 2 - MARGIN_DEG:
        return None
    return sector % count


def _question(scene_id: str, number: int, asked: Asked) -> Question:
    return Question(
        scene_id=scene_id,
        question_id=f"{scene_id}-{number}",
        question=asked.text,
        answers=(asked.answer,),
        situations=(asked.situation,) if asked.situation else (),
        question_type=asked.kind,
        position=asked.position,
        orientation=asked.orientation,
        frame=FRAME if asked.position is not None else "",
    )


def _of_type(
    kind: str,
    room: Room,
    seen: Mapping[str, int],
    true: Mapping[str, int],
    share: Mapping[str, float],
    most: int,
    rng: np.random.Generator,
) -> list[Asked]:
    if kind == COUNT:
        names = [name for name in CLASSES if seen.get(name) and seen[name] == true[name] < len(NUMBERS)]
        return [
            Asked(COUNT, f"how many {CLASSES[name].plural} are there?", NUMBERS[true[name]])
            for name in _some(names, most, rng)
        ]
    if kind == EXISTENCE:
        return _existence(seen, true, share, most, rng)
    if kind in (SIDE, FOUR, EIGHT):
        return _directions(kind, room, seen, true, most, rng)
    if kind == ROOM:
        return [Asked(ROOM, "what kind of room is this?", room.kind)]
    apart = np.linalg.norm(np.array(WALL_COLOURS) - room.look.faces[0], axis=1)
    return [Asked(COLOUR, "what colour are the walls?", WALL_WORDS[int(apart.argmin())])]


def _existence(
    seen: Mapping[str, int],
    true: Mapping[str, int],
    share: Mapping[str, float],
    most: int,
    rng: np.random.Generator,
) -> list[Asked]:
    """A class that is in a share f of the rooms is asked with weight 1 - f where it is and f where it is
    not."""
    names = [name for name in CLASSES if (name in seen) == (true[name] > 0)]  # none that is there but hidden
    weights = np.array([1 - share[name] if name in seen else share[name] for name in names])
    count = min(most, int((weights > 0).sum()))
    if not count:
        return []
    chosen = rng.choice(len(names), size=count, replace=False, p=weights / weights.sum())
    return [
        Asked(EXISTENCE, f"is there a {names[i]}?", "yes" if names[i] in seen else "no")
        for i in chosen.tolist()
    ]


def _directions(
    kind: str,
    room: Room,
    seen: Mapping[str, int],
    true: Mapping[str, int],
    most: int,
    rng: np.random.Generator,
) -> list[Asked]:
    place = (room.size[0] / 2, room.size[1] / 2)
    single = {
        solid.piece.name: solid
        for solid in room.solids
        if solid.piece.name is not None
        and true[solid.piece.name] == seen.get(solid.piece.name) == 1
        and math.dist((solid.x, solid.y), place) > NEAR_M
    }
    found = []
    pairs = [(a, b) for a in single for b in single if a != b]
    for i in rng.permutation(len(pairs)).tolist():
        faced, wanted = pairs[i]
        yaw = _bearing(single[faced], place)
        angle = math.degrees(_bearing(single[wanted], place) - yaw) % 360.0
        angle = angle - 360.0 if angle > 180.0 else angle
        answer = _answer(kind, angle)
        if answer is None:
            continue
        text = {
            SIDE: f"is the {wanted} left, right or behind?",
            FOUR: f"which way do I turn to the {wanted}?",
            EIGHT: f"in which direction is the {wanted}?",
        }[kind]
        facing = (0.0, 0.0, math.sin(yaw / 2), math.cos(yaw / 2))
        situation = f"I am standing in the middle of the room facing the {faced}."
        found.append(Asked(kind, text, answer, situation, (*place, 0.0), facing))
        if len(found) == most:
            break
    return found


def _answer(kind: str, angle_deg: float) -> str | None:
    """The answer for what stands at `angle_deg` in (-180, 180], counter-clockwise from ahead."""
    if kind == EIGHT:
        sector = direction(angle_deg, len(EIGHT_DIRECTIONS))
        return None if sector is None else EIGHT_DIRECTIONS[sector]
    sector = direction(angle_deg, len(FOUR_DIRECTIONS))
    if sector is None or (kind == SIDE and sector == 0):
        return None
    return "behind" if kind == SIDE and sector == 2 else FOUR_DIRECTIONS[sector]


def _bearing(solid: Solid, place: tuple[float, float]) -> float:
    return math.atan2(solid.y - place[1], solid.x - place[0])


def _some(names: Sequence[str], most: int, rng: np.random.Generator) -> list[str]:
    return [names[i] for i in rng.permutation(len(names))[:most]]
