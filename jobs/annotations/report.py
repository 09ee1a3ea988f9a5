"""What `poma annotations check` found: as a record for JSON, and as lines for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from jobs.display.text import aligned, some
from plinth.redaction import printable
from poma3d.annotations.ceiling import ceiling, room_of, scan_of
from poma3d.annotations.notes import ODDITIES
from poma3d.annotations.poses import FRAMES, NEEDED, SQA3D, ScanFrame, as_vector, in_world
from poma3d.annotations.rows import Annotations, CameraText, Oddity, Question, Vector
from poma3d.annotations.scan_frames import MESH, ScanFrames
from poma3d.annotations.vocabulary import Vocabulary

SHOWN = 10
"""Problems that a terminal shows; JSON has all."""
TYPES_SHOWN = 12
PERCENT = 100.0
AHEAD = np.array([1.0, 0.0, 0.0])
"""A direction for positions that are brought to our world without one."""


@dataclass
class KnownAnswers:
    """How the answers meet a vocabulary."""

    size: int
    rows_without: int
    """Rows with answers, of which none is known."""
    unknown: dict[str, int]
    """Answers that it lacks, the most frequent first."""


@dataclass
class Poses:
    """The poses of one frame on their way to our world."""

    frame: str
    rows: int
    converted: int = 0
    lowest: Vector | None = None
    """Least x, y and z in our world, metres."""
    highest: Vector | None = None
    missing: dict[str, dict[str, int]] = field(default_factory=dict)
    """What is missing -> the scenes with their rows."""
    unaligned: dict[str, int] = field(default_factory=dict)
    """Scenes without axisAlignment, which keep their frame, with their rows."""


@dataclass
class Report:
    """All that is printed."""

    annotations: Annotations
    vocabulary: KnownAnswers | None
    absent: list[str] | None
    """Scenes that the data set lacks; None where none was given."""
    poses: list[Poses]

    @property
    def scenes(self) -> list[str]:
        """In the order in which they first stand."""
        return list(dict.fromkeys(row.scene_id for row in self.annotations.rows))

    @property
    def unanswered(self) -> int:
        """Questions without an answer."""
        return sum(not row.answers for row in self.annotations.questions)

    @property
    def ceiling(self) -> dict[str, float] | None:
        """The greatest R@1 in percent of one query per utterance; None where there are none."""
        rows = self.annotations.utterances
        places = {"scan": scan_of, "room": room_of}
        return {name: PERCENT * ceiling(rows, place) for name, place in places.items()} if rows else None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        found = self.annotations
        return {
            "kind": found.kind,
            "rows": len(found.rows),
            "scenes": len(self.scenes),
            "splits": found.splits,
            "types": dict(found.counts),
            "without_answers": self.unanswered if found.questions else None,
            "r1_ceiling": self.ceiling,
            "left_out_by_rule": dict(found.left_out),
            "vocabulary": None if self.vocabulary is None else asdict(self.vocabulary),
            "absent_scenes": self.absent,
            "poses": [asdict(each) for each in self.poses],
            "odd": {
                name: {**asdict(each), "meaning": ODDITIES[name]} for name, each in found.oddities.items()
            },
            "bad": [asdict(problem) for problem in found.problems],
        }

    def lines(self) -> list[str]:
        """For a terminal."""
        found = self.annotations
        split = "".join(sorted({f", the published {name} split" for name in found.splits.values()}))
        table = [("rows", f"{len(found.rows)} in {len(self.scenes)} scenes{split}")]
        if found.questions:
            table.append(("answers", f"{self.unanswered} rows without"))
        if found.counts:
            most = [f"{printable(name)} {count}" for name, count in found.counts.most_common()]
            table.append(("types", some(most, TYPES_SHOWN)))
        if ceilings := self.ceiling:
            said = ", ".join(f"{value:.2f} % by {name}" for name, value in ceilings.items())
            table.append(("R@1", f"at most {said}, one query per row: texts repeat"))
        table += [("filtered", f"{count}: {rule}") for rule, count in found.left_out.items()]
        if self.vocabulary is not None:
            table.append(("vocabulary", _known(self.vocabulary)))
        if self.absent is not None:
            names = f": {_names(self.absent)}" if self.absent else ""
            table.append(("data set", f"lacks {len(self.absent)} of {len(self.scenes)} scenes{names}"))
        for poses in self.poses:
            table += [("poses", line) for line in _pose_lines(poses)]
        table += [("odd", _odd(name, each)) for name, each in found.oddities.items()]
        table += [("bad", printable(str(problem))) for problem in found.problems[:SHOWN]]
        more = len(found.problems) - SHOWN
        table += [("bad", f"and {more} more: --json lists all")] if more > 0 else []
        return [found.kind, *(f"  {line}" for line in aligned(table))]

    def verdict(self) -> str:
        """The last line."""
        problems = self.annotations.problems
        rows = [problem for problem in problems if problem.row]
        kept = sum(problem.kept for problem in rows)
        found = [
            (len(rows) - kept, "left out"),
            (kept, "kept without their bad part"),
        ]
        said = [f"{count} bad rows are {what}" for count, what in found if count]
        if files := len(problems) - len(rows):
            said.append(f"{files} of the files are not what they are named")
        return "; ".join(said) or "nothing is bad"


def known_answers(questions: Sequence[Question], vocabulary: Vocabulary) -> KnownAnswers:
    """Count the answers that a vocabulary lacks."""
    unknown = Counter(a for row in questions for a in dict.fromkeys(row.answers) if a not in vocabulary)
    without = sum(bool(row.answers) and not any(a in vocabulary for a in row.answers) for row in questions)
    return KnownAnswers(len(vocabulary), without, dict(unknown.most_common()))


def poses_of(annotations: Annotations, scans: ScanFrames | None) -> list[Poses]:
    """Bring the poses of all rows to our world, as far as what is known of the scans allows.

    Raises:
        ValueError: a file of a scan is damaged.
    """
    found: dict[str, Poses] = {}
    placed: dict[str, list[np.ndarray]] = {}
    for row in annotations.rows:
        if not isinstance(row, Question | CameraText) or row.position is None:
            continue
        poses = found.setdefault(row.frame, Poses(row.frame, 0))
        poses.rows += 1
        scan, missing = _scan_of(row.scene_id, row.frame, scans, poses)
        if missing:
            scenes = poses.missing.setdefault(missing, {})
            scenes[row.scene_id] = scenes.get(row.scene_id, 0) + 1
            continue
        position, _ = in_world(np.array(row.position), AHEAD, row.frame, scan)
        placed.setdefault(row.frame, []).append(position)
    for frame, positions in placed.items():
        found[frame].converted = len(positions)
        found[frame].lowest = as_vector(np.min(positions, axis=0))
        found[frame].highest = as_vector(np.max(positions, axis=0))
    return list(found.values())


def _scan_of(
    scene_id: str, frame: str, scans: ScanFrames | None, poses: Poses
) -> tuple[ScanFrame | None, str]:
    """The frame of a scan where one is needed, and what is missing of it."""
    if not NEEDED[frame]:
        return None, ""
    if scans is None:
        return None, f"{' and '.join(NEEDED[frame])} of each scan: give --scans FOLDER"
    scan = scans.frame(scene_id, mesh=frame == SQA3D)
    if scan is None:
        return None, f"SCAN/SCAN.txt in {scans.root}"
    if frame == SQA3D and scan.centre is None:
        return None, f"SCAN/SCAN{MESH} in {scans.root}"
    if scan.alignment is None:
        poses.unaligned[scene_id] = poses.unaligned.get(scene_id, 0) + 1
    return scan, ""


def _pose_lines(poses: Poses) -> list[str]:
    lines = [f"{poses.rows} in the frame: {FRAMES[poses.frame]}"]
    if poses.lowest is not None and poses.highest is not None:
        spans = [
            f"{axis} {low:.2f} to {high:.2f} m"
            for axis, low, high in zip("xyz", poses.lowest, poses.highest, strict=True)
        ]
        lines.append(f"{poses.converted} in our world: {', '.join(spans)}")
    lines += [f"{len(scenes)} scenes lack {why}: {_names(scenes)}" for why, scenes in poses.missing.items()]
    if poses.unaligned:
        count = len(poses.unaligned)
        lines.append(f"{count} scenes have no axisAlignment and keep their frame: {_names(poses.unaligned)}")
    return lines


def _odd(name: str, oddity: Oddity) -> str:
    """An oddity with its first place, whose folder is left out."""
    first = printable(oddity.first.rsplit("/", 1)[-1])
    return f"{name} ({oddity.count}): {ODDITIES[name]}; first: {first}"


def _known(vocabulary: KnownAnswers) -> str:
    unknown = [f"{printable(repr(answer))} {count}" for answer, count in vocabulary.unknown.items()]
    names = f": {some(unknown)}" if unknown else ""
    return (
        f"{vocabulary.size} answers; {vocabulary.rows_without} rows have none of them; outside are "
        f"{len(unknown)} answers{names}"
    )


def _names(scenes: Iterable[str]) -> str:
    return some([printable(scene) for scene in scenes])
