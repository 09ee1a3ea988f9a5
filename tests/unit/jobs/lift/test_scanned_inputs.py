"""A file of the input that is edited in place is noticed; one that is copied or touched is not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jobs.lift import command as lift
from jobs.lift.config import LiftJob
from plinth import config
from plinth.errors import ConfigError, DataError
from tests.helpers.lift.image_sets import lift_job, write_folder, write_parquet, write_photos_tar

SEEDS = list(range(4))


def write_set(folder: Path, kind: str) -> Path:
    """A set of four photos; returns a file of it."""
    if kind == "tar":
        write_photos_tar(folder / "0.tar", SEEDS)
        return folder / "0.tar"
    if kind == "parquet":
        write_parquet(folder / "0.parquet", SEEDS)
        return folder / "0.parquet"
    write_folder(folder, SEEDS)
    return folder / "pictures" / "1.jpg"


def job(tmp_path: Path, kind: str) -> LiftJob:
    inputs = [{"uri": str(tmp_path / "set"), "kind": kind}]
    return config.build(LiftJob, [("job", lift_job(tmp_path / "out", inputs))])


def flip(path: Path) -> None:
    """One byte in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def set_time(path: Path, seconds: int) -> None:
    os.utime(path, (seconds, seconds))


@pytest.mark.parametrize("kind", ["tar", "parquet", "folder"])
def test_an_edit_at_equal_size_is_named(kind: str, tmp_path: Path) -> None:
    path = write_set(tmp_path / "set", kind)
    lift.lift(job(tmp_path, kind))
    before = (tmp_path / "out" / "MANIFEST.json").read_bytes()
    set_time(path, 10**9)
    assert lift.lift(job(tmp_path, kind))[1] == [], "another time of change alone is no change"
    flip(path)
    set_time(path, 10**9 + 1)
    name = "captions.jsonl from image 0" if kind == "folder" else path.name
    with pytest.raises(ConfigError, match=f"other content of .*{name}, which changed"):
        lift.lift(job(tmp_path, kind))
    assert (tmp_path / "out" / "MANIFEST.json").read_bytes() == before


def test_an_edit_that_kept_the_time_is_found_where_asked(tmp_path: Path) -> None:
    path = write_set(tmp_path / "set", "tar")
    set_time(path, 10**9)
    lift.lift(job(tmp_path, "tar"))
    flip(path)
    set_time(path, 10**9)
    assert lift.lift(job(tmp_path, "tar"))[1] == []
    with pytest.raises(ConfigError, match=r"other content of .*0\.tar"):
        lift.lift(job(tmp_path, "tar"), check_inputs=True)


def test_what_was_not_recorded_is_unknown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_set(tmp_path / "set", "tar")
    lift.lift(job(tmp_path, "tar"))
    [kept] = (tmp_path / "out" / "lift" / "inputs").iterdir()
    kept.write_text("{}")
    with pytest.raises(DataError, match=r"is not the record of .*0\.tar"):
        lift.lift(job(tmp_path, "tar"))
    kept.unlink()
    flip(path)
    capsys.readouterr()
    assert lift.lift(job(tmp_path, "tar"))[1] == []
    assert "of 1 pieces there is no record, so changes are unknown" in capsys.readouterr().out


def test_a_version_whose_shards_are_damaged_is_neither_done_nor_built_upon(tmp_path: Path) -> None:
    write_set(tmp_path / "set", "tar")
    lift.lift(job(tmp_path, "tar"))
    min((tmp_path / "out" / "shards").iterdir()).write_bytes(b"")
    for _ in range(2):
        with pytest.raises(DataError, match=r"truncated \(0 bytes.* Restore them, or give another output"):
            lift.lift(job(tmp_path, "tar"))
        write_photos_tar(tmp_path / "set" / "1.tar", range(4, 6))
