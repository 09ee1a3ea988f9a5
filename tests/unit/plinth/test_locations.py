"""A job that is made absolute has no relative path left, whatever the field is called."""

from __future__ import annotations

import typing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import poma3d.locations
from plinth import locations as plinth_locations
from plinth.config import build
from plinth.locations import RESULT, Location, ModelLocation, ResultLocation, absolute, at_home, locations
from plinth.schema import MISSING, describe


@dataclass
class Inner:
    folder: Location = MISSING
    """A path."""
    note: str = "as/it/is"
    """Text that looks like a path."""


@dataclass
class Job:
    output: ResultLocation = MISSING
    """A result."""
    start: Location | None = None
    """May be left out."""
    source: ModelLocation = "org/model"
    """A model."""
    parts: list[Inner] = field(default_factory=list)
    """A list."""
    named: dict[str, Inner] = field(default_factory=dict)
    """A mapping."""


def job(**values: object) -> Job:
    return build(Job, [("job.yaml", {"output": "runs", **values})])


def test_every_relative_path_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "saved").mkdir()
    given = job(
        start="a/warmup", source="saved", parts=[{"folder": "b#3"}, {"folder": "s3://c/d"}],
        named={"x": {"folder": "~/e"}},
    )  # fmt: skip
    there = absolute(given)
    assert locations(there) == [
        f"{tmp_path}/runs", f"{tmp_path}/a/warmup", f"{tmp_path}/saved", f"{tmp_path}/b#3", "s3://c/d",
        str(Path("~/e").expanduser()),
    ]  # fmt: skip
    assert there.parts[0].note == "as/it/is"
    assert given.output == "runs", "the job that was given stays as it is"
    assert absolute(there) == there


def test_home_is_the_folder_it_stands_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    given = job(
        output="~/runs", start="s3://b/~/a", source="~/teacher", parts=[{"folder": "~", "note": "~/as/it/is"}]
    )
    there = at_home(given)
    assert locations(there) == [f"{tmp_path}/runs", "s3://b/~/a", f"{tmp_path}/teacher", str(tmp_path)]
    assert there.parts[0].note == "~/as/it/is"
    assert locations(at_home(job(output="a~b"))) == ["a~b", "org/model"]


def test_hub_ids_and_what_is_left_out_stay() -> None:
    there = absolute(job())
    assert (there.source, there.start) == ("org/model", None)
    assert locations(there, RESULT) == [there.output]


def test_marked_types_read_as_text_in_help_and_errors() -> None:
    assert {key.name: key.type for key in describe(Job)}["start"] == "str | None"


def test_poma3d_has_the_same_types() -> None:
    for name in ("Location", "ModelLocation"):
        pair = (getattr(plinth_locations, name), getattr(poma3d.locations, name))
        assert typing.get_args(pair[0]) == typing.get_args(pair[1]), name
        assert pair[0].__metadata__ == pair[1].__metadata__
