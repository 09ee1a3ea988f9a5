"""What a reader writes down beside the rows: what is bad, and what is odd."""

from __future__ import annotations

from pathlib import Path

from poma3d.annotations.rows import Annotations, Oddity, Problem

ODDITIES = {
    "no answers": "rows without answers, as in the published test sets of ScanQA",
    "repeated answers": "rows that list an answer more than once: a count of entries is no count of answers",
    "several answers": "rows with more than one answer where the published files have one",
    "ids beyond int32": "question ids that overflow int32 and are inexact in float32",
    "ids that are numbers": "ids that the published files write as text: leading zeros are lost",
    "not two alternatives": "rows with other than two alternative situations, as in the published files",
    "z is not 0": "positions off the floor plane of their frame",
    "negative w": "quaternions of negative w: the same rotation as their negative, not another",
    "rotation not about z": "agents that are tilted; the published ones turn about z alone",
    "contradictory rows": "rows of equal scene, situation and question with other answers",
    "equal rows": "rows of equal scene, situation and question",
    "situation without a full stop": "situations that end without punctuation: joined texts run together",
    "untrimmed text": "texts that begin or end with white space",
    "double blanks": "texts with two blanks in a row",
    "not ASCII": "texts with characters outside ASCII, such as curly quotes",
    "all capitals": "texts in capitals throughout",
    "upper-case answers": "answers with capitals, as SQA3D's TV",
    "unlike the published split": "files whose rows and scenes match no published split",
    "ids of another split": "ids that name another split, as those of ScanQA's test_w_obj begin with val-",
    "several types": "questions of several types: they count in each",
    "no orientation": "scenes without a row in the table of orientations",
    "3RScan scenes": "scenes of 3RScan, named by a uuid",
    "wrap-around": "directions 4 of four and 8 of eight, which are forward again",
    "misspelt directions": "direction texts with the published typo, such as turn to foward left",
    "text of another direction": "direction texts that are not those of their number",
    "numbers as text": "numbers that are written as text",
    "no pose": "rows without the pose that the published layout has",
    "scenes apart": "scenes whose rows do not stand together: group by scene, in file order",
    "repeated texts": "texts that stand there before, of the same scene",
    "texts of several scans": "texts that stand word for word under more than one scan: a ceiling on R@1",
    "texts of several rooms": "texts that stand word for word under more than one room, rescans counted once",
    "rooms scanned several times": "rooms of which several scans have rows",
    "wrong guess": "rows that the listener guessed wrong; the published filter keeps them",
    "tokens respelt": "rows whose tokens are not the words of the utterance: use the utterance",
    "stimulus names another object": "rows whose stimulus_id disagrees with their own columns",
    "lists as text": "lists that are written as Python or JSON text",
    "rows without views": "rows without view_ground_truth, which view grounding skips",
    "lost by the public loader": "rows with curly quotes, which the public loader turns into broken JSON",
    "changed by the public loader": "rows with NaN or a comma before a bracket, which it alters",
    "camera turned away": "cameras whose angles point elsewhere than at their lookat; the lookat is used",
    "cameras without a text": "cameras whose text was not given",
    "texts without a camera": "texts of which no camera was given",
}  # fmt: skip
"""Name -> what it means."""


class BadRow(ValueError):
    """A row that cannot be used; says why."""


class Notes:
    """Collects what a reader finds."""

    def __init__(self, kind: str) -> None:
        self.annotations = Annotations(kind)

    @classmethod
    def on(cls, annotations: Annotations) -> Notes:
        """More notes on what was read."""
        notes = cls(annotations.kind)
        notes.annotations = annotations
        return notes

    def problem(self, file: Path, row: str, reason: str | Exception, *, kept: bool = False) -> None:
        """A bad row, or with an empty `row` a bad file."""
        self.annotations.problems.append(Problem(str(file), row, str(reason), kept))

    def odd(self, name: str, where: str, count: int = 1) -> None:
        """Something of `ODDITIES`."""
        assert name in ODDITIES, name
        found = self.annotations.oddities.get(name)
        if found is None:
            self.annotations.oddities[name] = Oddity(count, where)
        else:
            found.count += count

    def odd_text(self, text: str, where: str) -> None:
        """The oddities of a text."""
        if text != text.strip():
            self.odd("untrimmed text", where)
        if "  " in text:
            self.odd("double blanks", where)
        if not text.isascii():
            self.odd("not ASCII", where)
        if text.isupper() and " " in text:
            self.odd("all capitals", where)
