"""Data sets of the same scenes that are built together: each scene is read once, the bytes are the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobs.ingest import command
from jobs.ingest.config import IngestJob
from plinth.config import parse, resolve
from poma3d.synthetic.rooms import RoomsReader
from tests.helpers.tiny_jobs import ingest_job


def job(output: Path, **changes: Any) -> IngestJob:
    return resolve(IngestJob, parse(str(ingest_job(output, **changes)), "job"), "job")


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "shards").iterdir()}


def test_a_scene_of_several_data_sets_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    apart = {"rooms": 2, "images": 1}
    for name, views in apart.items():
        command.ingest([job(tmp_path / "apart" / name, views=views)])
    seen: list[str] = []
    read = RoomsReader.read

    def counted(self: RoomsReader, scene_id: str) -> Any:
        seen.append(scene_id)
        return read(self, scene_id)

    monkeypatch.setattr(RoomsReader, "read", counted)
    together = [job(tmp_path / "together" / name, views=views) for name, views in apart.items()]
    other = job(tmp_path / "together" / "other", rooms=3)
    found = command.ingest([*together, other])
    assert [dataset.storage.uri.rpartition("/")[2] for dataset in found] == ["rooms", "images", "other"]
    assert len(seen) == 8 + 3, "8 rooms once for both, 3 of the data set that has its own"
    for name in apart:
        assert shards(tmp_path / "together" / name) == shards(tmp_path / "apart" / name)
    again = command.ingest([*together, other])
    assert [one.manifest.hash for one in again] == [one.manifest.hash for one in found]
    assert len(seen) == 8 + 3, "what is there is not made again"
