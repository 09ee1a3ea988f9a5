"""What a benchmark gives: figures of every encoder with the protocol that they were measured by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.evaluate.measure import MODEL
from jobs.evaluate.tables import NOTES, Row, Table
from plinth.errors import DataError
from plinth.redaction import printable
from poma3d.annotations.read import read
from poma3d.annotations.rows import Annotations
from poma3d.evaluate.bootstrap import Estimate

Figure = Estimate | float


@dataclass
class BenchmarkResult:
    """One table: of one set of annotations, by one protocol."""

    benchmark: str
    """What is asked, such as `scene retrieval, chunks of 5, by scan`."""
    source: list[str]
    """Names of the annotation files."""
    protocol: dict[str, str | int | float]
    """Every choice that the figures depend on."""
    counts: dict[str, int]
    """Rows, queries, scenes; what was left out, by reason."""
    references: dict[str, dict[str, float]]
    """Rows that no encoder gives: chance, the ceiling; {row: {column: value}}."""
    figures: dict[str, dict[str, Figure]] = field(default_factory=dict)
    """{encoder: {column: value}}."""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "benchmark": self.benchmark,
            "source": self.source,
            "protocol": self.protocol,
            "counts": self.counts,
            "references": self.references,
            "figures": {
                name: {c: f.to_dict() if isinstance(f, Estimate) else f for c, f in row.items()}
                for name, row in self.figures.items()
            },
        }

    def table(self) -> Table:
        """For people."""
        given = [*map(list, self.references.values()), *map(list, self.figures.values())]
        columns = list(dict.fromkeys(column for row in given for column in row))
        known = [name for name in NOTES if name in self.figures]
        encoders = [*known, *(name for name in self.figures if name not in known)]
        rows = [Row(name, "", [values.get(c) for c in columns]) for name, values in self.references.items()]
        rows += [
            Row(name, NOTES.get(name, ""), [self.figures[name].get(c) for c in columns], strong=name == MODEL)
            for name in encoders
        ]
        settings = ", ".join(f"{key} {value}" for key, value in self.protocol.items())
        counted = ", ".join(f"{count} {what}" for what, count in self.counts.items() if count)
        title = f"{self.benchmark[0].upper()}{self.benchmark[1:]}: {printable(', '.join(self.source))}"
        return Table(title, columns, rows, f"Protocol: {settings}. {counted[0].upper()}{counted[1:]}.")


def read_annotations(kind: str, files: Sequence[str], key: str) -> Annotations:
    """The rows of annotation files.

    Args:
        key: of the job, for an error.

    Raises:
        DataError: a file cannot be used; says which and why.
    """
    try:
        return read(kind, [Path(name).expanduser() for name in files])
    except ValueError as error:
        raise DataError(
            f"{key}: {error}.", f"Look at it with `poma annotations check {kind} FILE...`."
        ) from None


def file_names(files: Sequence[str]) -> list[str]:
    """Without their folders."""
    return [Path(name).name for name in files]
