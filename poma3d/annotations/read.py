"""`read(kind, files)`: annotation files of any format as rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from poma3d.annotations.directions import FOUR, TEXTS
from poma3d.annotations.formats.hypo3d import read_hypo3d
from poma3d.annotations.formats.localisation import read_localisation
from poma3d.annotations.formats.msnn import read_msnn
from poma3d.annotations.formats.parts import Opened, Part, open_part
from poma3d.annotations.formats.referit3d import read_referit3d
from poma3d.annotations.formats.retrieval import read_retrieval
from poma3d.annotations.formats.scanqa import read_scanqa
from poma3d.annotations.formats.scanrefer import read_scanrefer
from poma3d.annotations.formats.sqa3d import read_sqa3d
from poma3d.annotations.published import note_splits
from poma3d.annotations.rows import Annotations

Reader = Callable[[Sequence[Opened]], Annotations]


@dataclass(frozen=True)
class Kind:
    """A kind of annotations."""

    rows: tuple[Part, ...]
    """The files that hold its rows: one of them at least."""
    beside: tuple[Part, ...]
    """The files that may stand beside them."""
    read: Reader


def kinds(directions: int = len(FOUR)) -> dict[str, Kind]:
    """All kinds by name.

    Args:
        directions: MSNN's answers are among 4 or 8.
    """
    return {
        "scanqa": Kind((Part.SCANQA,), (), read_scanqa),
        "sqa3d": Kind((Part.SQA3D_QUESTIONS,), (Part.SQA3D_ANSWERS,), read_sqa3d),
        "hypo3d": Kind(
            (Part.HYPO3D, Part.HYPO3D_QUESTIONS), (Part.HYPO3D_ANSWERS, Part.HYPO3D_ORIENTATIONS), read_hypo3d
        ),
        "msnn": Kind(
            (Part.MSNN, Part.MSNN_QUESTIONS), (Part.MSNN_ANSWERS,), partial(read_msnn, directions=directions)
        ),
        "scanrefer": Kind((Part.SCANREFER,), (), read_scanrefer),
        "nr3d": Kind((Part.NR3D, Part.UTTERANCES), (), partial(read_referit3d, "nr3d")),
        "sr3d": Kind((Part.SR3D, Part.UTTERANCES), (), partial(read_referit3d, "sr3d")),
        "retrieval": Kind((Part.UTTERANCES,), (), read_retrieval),
        "localisation": Kind(
            (Part.SQA3D_POSES, Part.CAMERAS), (Part.SQA3D_SITUATIONS, Part.SCANREFER), read_localisation
        ),
    }


def read(kind: str, files: Sequence[Path], *, directions: int = len(FOUR)) -> Annotations:
    """The rows of annotation files, with what is bad and odd about them.

    Args:
        kind: a name of `kinds`.
        files: all files of one split; which is which is told by what stands in them.
        directions: MSNN's answers are among 4 or 8.

    Raises:
        ValueError: no such kind; a file cannot be read, is of another kind or of another split than its
        partner;
            there is no row that can be used.
    """
    known = kinds(directions)
    if kind not in known:
        raise ValueError(f"no kind {kind}; there are {', '.join(known)}")
    if directions not in TEXTS:
        raise ValueError(f"directions are 4 or 8, not {directions}")
    twice = sorted({str(path) for path in files if files.count(path) > 1})
    if twice:
        raise ValueError(f"{twice[0]} is given twice")
    opened = [open_part(path) for path in files]
    for each in opened:
        _check(kind, each, known)
    if not any(each.part in known[kind].rows for each in opened):
        missing = " or ".join(part.value for part in known[kind].rows)
        raise ValueError(f"{', '.join(map(str, files))}: without {missing}, there are no rows")
    annotations = known[kind].read(opened)
    if not annotations.rows:
        why = f"; the first is {annotations.problems[0]}" if annotations.problems else ""
        filtered = f"; {sum(annotations.left_out.values())} were filtered" if annotations.left_out else ""
        raise ValueError(f"{files[0]}: no row that can be used{why}{filtered}")
    note_splits(annotations, opened)
    return annotations


def _check(kind: str, opened: Opened, known: dict[str, Kind]) -> None:
    if opened.part in known[kind].rows + known[kind].beside:
        return
    if opened.part is Part.VOCABULARY:
        raise ValueError(f"{opened.path}: an answer dictionary; give it with --vocabulary")
    others = [name for name, other in known.items() if opened.part in other.rows + other.beside]
    hint = f": kind {' or '.join(others)}" if others else ", which is not read here"
    raise ValueError(f"{opened.path}: {opened.part.value}{hint}, not {kind}")
