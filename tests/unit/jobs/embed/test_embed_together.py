"""Data sets that are embedded together: what they share is embedded once, and the bytes are the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobs.cli import main
from jobs.embed.command import embed
from jobs.embed.config import EmbedJob
from plinth import config
from poma3d.pretrained.teacher import Teacher
from tests.helpers.tiny_jobs import ingest_job, write

VIEWS = {"rooms": 2, "images": 1}


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "shards").iterdir()}


def test_pictures_and_texts_of_several_data_sets_are_embedded_once(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = []
    for name, views in VIEWS.items():
        ingest = write(tmp_path / f"{name}.yaml", ingest_job(tmp_path / name, views=views))
        assert main(["ingest", ingest]) == 0
        wanted = {"data": str(tmp_path / name), "teacher": {"source": str(made / "teacher")}, "workers": 0}
        jobs.append(config.build(EmbedJob, [("job", wanted)]))
    pictures = []
    encode = Teacher.encode_images

    def counted(self: Teacher, images: Any) -> Any:
        pictures.append(len(images))
        return encode(self, images)

    monkeypatch.setattr(Teacher, "encode_images", counted)
    found = embed(jobs)
    assert [dataset.storage.uri for dataset in found] == [job.data for job in jobs]
    assert sum(pictures) == 8 * VIEWS["rooms"], "each view once, though both data sets have it"
    for name in VIEWS:
        assert shards(tmp_path / name) == shards(made / name), "as one after the other"
