"""Scans that ingest keeps apart, and the choice of doing without Ray."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.cli import main
from jobs.common.datasets import open_dataset
from plinth.storage import StorageOptions
from tests.helpers.tiny_jobs import ingest_job, write


def scenes(folder: Path) -> list[str]:
    return [sample.scene_id for sample in open_dataset(str(folder), StorageOptions()).samples()]


def test_every_third_scan_is_held_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = write(tmp_path / "job.yaml", ingest_job(tmp_path / "all", rooms=7))
    assert main(["ingest", job]) == 0
    split = [f"output={tmp_path}/rooms", f"held_out.output={tmp_path}/apart", "held_out.every=3"]
    assert main(["ingest", job, *split]) == 0
    everything, apart = scenes(tmp_path / "all"), scenes(tmp_path / "apart")
    assert apart == [everything[2], everything[5]]
    assert scenes(tmp_path / "rooms") == [scene for scene in everything if scene not in apart]
    capsys.readouterr()
    assert main(["ingest", job, *split]) == 0
    assert capsys.readouterr().out.count("already built from this job") == 2
    assert main(["ingest", job, *split[:2], "held_out.every=2"]) == 2
    assert "another job built" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["held_out.every=3"], "held_out.output is None. Give both"),
        (["held_out.output=apart"], "held_out.every is 0"),
        (["held_out.output=apart", "held_out.every=1"], "leaves nothing to train on"),
        (["held_out.output=apart", "held_out.every=9"], "fewer than 9 scans, so none is held out"),
    ],
)
def test_half_a_split_is_refused(
    words: list[str],
    says: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    job = write(tmp_path / "job.yaml", ingest_job(tmp_path / "rooms", rooms=2))
    assert main(["ingest", job, *words]) == 2
    assert says in capsys.readouterr().err


def test_one_shard_is_written_without_ray_unless_the_job_says_otherwise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def started(**_: object) -> None:
        raise ConnectionError("started")

    monkeypatch.setattr("ray.init", started)
    job = write(tmp_path / "job.yaml", ingest_job(tmp_path / "rooms", rooms=2, workers=None))
    assert main(["ingest", job]) == 0
    assert "1 shard: done in this process, without Ray" in capsys.readouterr().out
    assert main(["ingest", job, "reader.rooms.rooms=8", f"output={tmp_path}/more"]) == 2
    assert "no Ray cluster answers there (started)" in capsys.readouterr().err
