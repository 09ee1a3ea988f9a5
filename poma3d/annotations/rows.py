"""What a row of any benchmark becomes.

    scanqa, sqa3d, hypo3d, msnn                        Question
    scanrefer, nr3d, sr3d, retrieval                   Utterance
    localisation                                       CameraText

Positions are in metres. Quaternions are (x, y, z, w), scalar last.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

Vector = tuple[float, float, float]
Quaternion = tuple[float, float, float, float]


@dataclass(frozen=True)
class Question:
    """A question about a scene; `answers` is empty where the file has none, as in ScanQA's test sets."""

    scene_id: str
    question_id: str
    """As it stands in the file; an integer there is written in decimal digits."""
    question: str
    answers: tuple[str, ...]
    """As listed, in the file's order, repeats kept."""
    situations: tuple[str, ...] = ()
    """The main one first, then its alternatives. Hypo3D: orientation and change; MSNN: situation and
    interaction; both joined by a blank here, `parts` has them apart."""
    question_type: str = ""
    """SQA3D: by the prefix rule; ScanQA: its six classes; Hypo3D: as in the file, may be several words, and
    the row then counts in each."""
    position: Vector | None = None
    """As in the file; `frame` says in which frame."""
    orientation: Quaternion | None = None
    """As in the file: the rotation of the agent, whose own axis of facing is that of `frame`."""
    frame: str = ""
    """One of the names of `poma3d.annotations.poses.FRAMES`; empty where the row has no pose."""
    parts: tuple[str, ...] = ()
    """The texts that the first situation is made of, where there are several."""
    choice: int | None = None
    """MSNN: the class among the four or eight directions, after the wrap-around; 0 is forward, then
    counter-clockwise."""
    change_type: str = ""
    """Hypo3D as released, such as `Movement Change`."""

    def asked(self, joiner: str) -> tuple[str, ...]:
        """The question with each of its situations before it, the main one first.

        Args:
            joiner: what stands between the texts; the public code has nothing there.
        """
        if self.parts:
            return (joiner.join((*self.parts, self.question)),)
        return tuple(joiner.join((each, self.question)) for each in self.situations) or (self.question,)


@dataclass(frozen=True)
class Utterance:
    """A text about an object of a scene, or about the scene."""

    scene_id: str
    text: str
    """As it stands in the file, blanks included."""
    object_id: str = ""
    object_name: str = ""
    """With blanks where the file has underscores."""
    views: tuple[int, ...] = ()
    """`view_ground_truth`: indices of views; the first is the best one."""


@dataclass(frozen=True)
class CameraText:
    """A text, and the camera from which it was said."""

    scene_id: str
    text: str
    position: Vector
    rotation: Quaternion
    """Camera -> `frame`. The camera is held level, with the axes of our views: x right, y down, z forward."""
    frame: str = ""
    """`world` where the pose was brought to our world frame (z up, axis-aligned); else the frame of the file,
    a name of `poma3d.annotations.poses.FRAMES`."""
    text_id: str = ""
    """SQA3D: `situation_id`; ScanRefer: `scene0050_00-6_4`."""
    object_id: str = ""
    object_name: str = ""
    orientation: Quaternion | None = None
    """SQA3D: the agent's rotation as in the file."""


Row = Question | Utterance | CameraText


@dataclass(frozen=True)
class Problem:
    """A bad row: why, and where it stands; or what is wrong with a file as a whole."""

    file: str
    row: str
    """`row 12`, from 1; `line 12`; or its key. Empty for the whole file."""
    reason: str
    kept: bool = False
    """Whether the row was kept without its bad part, such as a question without its pose."""

    def __str__(self) -> str:
        return f"{self.file}, {self.row}: {self.reason}" if self.row else f"{self.file}: {self.reason}"


@dataclass
class Oddity:
    """Something unusual that is no mistake: how often it occurs, and where first."""

    count: int
    first: str


@dataclass
class Annotations:
    """What a reader returns."""

    kind: str
    rows: list[Row] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    oddities: dict[str, Oddity] = field(default_factory=dict)
    """By name; see `poma3d.annotations.notes` for what each means."""
    counts: Counter[str] = field(default_factory=Counter)
    """Rows per question type or object class, whatever the format tells apart."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Good rows that a published rule leaves out, per rule: Nr3D's and Sr3D's default filter."""
    splits: dict[str, str] = field(default_factory=dict)
    """File -> the published split that has as many rows in as many scenes."""

    @property
    def questions(self) -> list[Question]:
        """The rows that are questions."""
        return [row for row in self.rows if isinstance(row, Question)]

    @property
    def utterances(self) -> list[Utterance]:
        """The rows that are utterances."""
        return [row for row in self.rows if isinstance(row, Utterance)]

    @property
    def camera_texts(self) -> list[CameraText]:
        """The rows that are texts with a camera."""
        return [row for row in self.rows if isinstance(row, CameraText)]
