"""The published tables as typed data, and our figures beside them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent
TABLES, OURS = FOLDER / "tables.yaml", FOLDER / "ours.json"
FINETUNE, EVALUATE, SCORE = "finetune", "evaluate", "score"


@dataclass(frozen=True)
class Filling:
    """How our cells of a row are filled."""

    needs: str
    """Which data."""
    command: str
    """The one command."""
    kind: str
    """What writes the figures: finetune, evaluate or score."""
    figures: list[str]
    """Where each measure stands there; of `evaluate` as `BENCHMARK: COLUMN`."""
    task: str = ""
    """finetune, score: which."""
    split: str = ""
    """finetune: which."""


@dataclass(frozen=True)
class Row:
    """A benchmark of a table."""

    key: str
    name: str
    measures: list[str]
    published: dict[str, list[str]]
    """Source -> a figure for each measure, as printed; empty where it gives none."""
    ours: Filling


@dataclass(frozen=True)
class Table:
    """A table of one kind of benchmark."""

    title: str
    sources: list[str]
    comparable: list[str]
    """What makes the figures comparable with ours, or not."""
    rows: list[Row]


@dataclass(frozen=True)
class Source:
    """Who reports."""

    name: str
    of: str


@dataclass(frozen=True)
class Published:
    """All of it."""

    sources: dict[str, Source]
    tables: list[Table]
    prepare: list[str]
    """Commands that come before all others, once."""

    @property
    def rows(self) -> dict[str, Row]:
        """By key."""
        return {row.key: row for table in self.tables for row in table.rows}


@dataclass
class Measured:
    """Our figures of a row."""

    cells: dict[str, str]
    """Measure -> percent, as printed."""
    of: str
    """What they are of: checkpoint, protocol, file."""
    file: str = ""
    """Name of the file that they were read from."""


@dataclass
class Ours:
    """All that was measured."""

    rows: dict[str, Measured] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path = OURS) -> Ours:
        """From `ours.json`."""
        return cls({key: Measured(**each) for key, each in json.loads(path.read_text()).items()})

    def write(self, path: Path = OURS) -> None:
        """To it."""
        content = {key: vars(each) for key, each in sorted(self.rows.items())}
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def published(path: Path = TABLES) -> Published:
    """The tables of `tables.yaml`.

    Raises:
        ValueError: a row whose lists differ in length, or a key that is used twice.
    """
    content = yaml.safe_load(path.read_text())
    sources = {name: Source(**each) for name, each in content["sources"].items()}
    tables = [
        Table(
            each["title"],
            each["sources"],
            each["comparable"],
            [_row(row, each["sources"]) for row in each["rows"]],
        )
        for each in content["tables"]
    ]
    found = Published(sources, tables, content["prepare"])
    keys = [row.key for table in tables for row in table.rows]
    if twice := sorted({key for key in keys if keys.count(key) > 1}):
        raise ValueError(f"{path}: rows of the same key: {', '.join(twice)}")
    return found


def _row(content: dict[str, Any], sources: list[str]) -> Row:
    given = dict(content["ours"])
    filling = Filling(kind=given.pop("from"), **given)
    measures = content["measures"]
    given_by = {name: content.get(name) or [None] * len(measures) for name in sources}
    figures = {name: ["" if v is None else str(v) for v in values] for name, values in given_by.items()}
    for name, values in {**figures, "ours.figures": filling.figures}.items():
        if len(values) != len(measures):
            raise ValueError(f"{content['key']}: {name}: {len(values)} values for {len(measures)} measures")
    return Row(content["key"], content["name"], measures, figures, filling)
