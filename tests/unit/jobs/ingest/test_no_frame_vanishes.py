"""Every frame that is listed is stored, rejected with a row, or counted as not needed: none vanishes."""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.cli import main
from jobs.common.datasets import Dataset
from jobs.ingest.command import ingest
from jobs.ingest.config import IngestJob
from plinth import config
from plinth.errors import DataError
from poma3d.scenes.frame import SceneFrames
from tests.helpers.lift.image_sets import huge_png
from tests.helpers.scans import room, write_seven_scenes
from tests.helpers.tiny_jobs import ingest_job, write

NOT_A_ROTATION = "2 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1"
NAN = NOT_A_ROTATION.replace("2", "nan")
FRAMES = 6

HARM: dict[str, Callable[[Path, str], object]] = {
    "no depth": lambda scan, stem: (scan / f"{stem}.depth.png").unlink(),
    "unreadable depth": lambda scan, stem: (scan / f"{stem}.depth.png").write_bytes(b"\x89PNG no"),
    "unreadable pose": lambda scan, stem: (scan / f"{stem}.pose.txt").unlink(),
    "pose is not a rotation": lambda scan, stem: (scan / f"{stem}.pose.txt").write_text(NOT_A_ROTATION),
    "non-finite pose": lambda scan, stem: (scan / f"{stem}.pose.txt").write_text(NAN),
    "unreadable colour": lambda scan, stem: (scan / f"{stem}.color.jpg").write_bytes(b"\xff\xd8\xff no"),
}
"""Reason -> what is done to a frame's files to get it."""


@cache
def scene() -> SceneFrames:
    return room(views=FRAMES)


def write_scan(folder: Path, harms: list[str | None]) -> None:
    """A scan whose frame i is harmed in the way `harms[i]`."""
    write_seven_scenes(folder, scene(), np.eye(3))
    for i in range(FRAMES):
        harm = harms[i] if i < len(harms) else None
        if harm is not None:
            HARM[harm](folder, f"frame-{i:06d}")


def job(root: Path, output: Path, **changes: object) -> dict:
    made = ingest_job(output)
    made["reader"] = {"kind": "seven_scenes", "seven_scenes": {"root": str(root), "up": [0.0, 0.0, 1.0]}}
    made["shape"]["views"] = FRAMES
    return {**made, **changes}


def built(made: dict) -> Dataset | None:
    """The data set; None where nothing was left."""
    try:
        return ingest([config.build(IngestJob, [("job", made)])])[0]
    except DataError:
        return None


def rows(output: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((output / "rejects.csv").read_text().splitlines()))


harmed = st.lists(st.none() | st.sampled_from(sorted(HARM)), min_size=FRAMES, max_size=FRAMES)


@settings(max_examples=25, deadline=None)
@given(scans=st.lists(harmed, min_size=1, max_size=3))
def test_stored_and_rejected_are_all(scans: list[list[str | None]]) -> None:
    """With room for every frame nothing is skipped: what is not stored has a row with its own reason."""
    with tempfile.TemporaryDirectory() as folder:
        for number, harms in enumerate(scans):
            write_scan(Path(folder) / "scans" / f"s{number}", harms)
        dataset = built(job(Path(folder) / "scans", Path(folder) / "out"))
        found = [(row["scene_id"], row["frame_id"], row["reason"]) for row in rows(Path(folder) / "out")]
    # A scan without any depth map is no scan of the listing.
    listed = {f"s{n}": harms for n, harms in enumerate(scans) if any(harm != "no depth" for harm in harms)}
    expected = [
        (scan, f"frame-{i:06d}", harm)
        for scan, harms in listed.items()
        for i, harm in enumerate(harms)
        if harm is not None
    ]
    stored = FRAMES * len(listed) - len(expected)
    if listed:
        assert sorted(found) == sorted(expected)
    assert (dataset is None) == (stored == 0)
    if dataset is not None:
        stats = dataset.manifest.attributes["statistics"]
        assert (stats["frames"], stats["views"]) == (FRAMES * len(listed), stored)
        assert (stats["rejected_frames"], stats["skipped_frames"]) == (len(expected), 0)


@settings(max_examples=15, deadline=None)
@given(harms=harmed, views=st.integers(1, FRAMES), step=st.integers(1, 3), single=st.booleans())
def test_what_is_not_needed_is_counted(harms: list[str | None], views: int, step: int, single: bool) -> None:
    """Frames that are no candidates, or see too little, are told apart from those that vanish."""
    with tempfile.TemporaryDirectory() as folder:
        write_scan(Path(folder) / "s", harms)
        made = job(Path(folder) / "s", Path(folder) / "out")
        made["shape"]["views"] = 1 if single else views
        made["views"] = {"candidate_step": step, "single_images": single}
        dataset = built(made)
        found = [row["frame_id"] for row in rows(Path(folder) / "out")] if dataset else []
    if dataset is not None:
        stats = dataset.manifest.attributes["statistics"]
        assert len(set(found)) == len(found) == stats["rejected_frames"]
        assert (
            stats["views"] + stats["rejected_frames"] + stats["skipped_frames"] == stats["frames"] == FRAMES
        )
        assert stats["skipped_frames"] >= 0


def test_the_table_is_there_when_nothing_was_rejected(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_scan(tmp_path / "s", [])
    assert main(["ingest", write(tmp_path / "job.yaml", job(tmp_path / "s", tmp_path / "out"))]) == 0
    assert (tmp_path / "out" / "rejects.csv").read_text().splitlines() == ["scene_id,frame_id,reason,value"]
    assert "most often" not in capsys.readouterr().out


def test_the_last_line_says_what_to_do_about_the_most_frequent_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    write_scan(tmp_path / "s", ["unreadable depth", "non-finite pose", "unreadable depth"])
    assert main(["ingest", write(tmp_path / "job.yaml", job(tmp_path / "s", tmp_path / "out"))]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert "unreadable depth, 2 of 3 rejects: copy or unpack the depth files again" in last


def test_when_nothing_is_left_the_readers_own_words_are_the_error(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for name in ("a", "b"):
        write_scan(tmp_path / "scans" / name, [])
        (tmp_path / "scans" / name / "camera-intrinsics.txt").unlink()
    out = tmp_path / "out"
    assert main(["ingest", write(tmp_path / "job.yaml", job(tmp_path / "scans", out))]) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert "No valid frame in a, b: 2 x unusable scan" in line
    assert "reader.seven_scenes.camera=7-scenes for the official release" in line
    assert str(out / "rejects.csv") in line
    assert "min_valid_depth" not in line
    assert [row["reason"] for row in rows(out)] == ["unusable scan"] * 2
    assert not (out / "MANIFEST.json").exists()


@pytest.mark.parametrize(
    ("name", "content", "row"),
    [
        ("frame-000001.color.jpg", huge_png(), ["a", "frame-000001", "unreadable colour"]),
        ("frame-000001.depth.png", huge_png(), ["a", "frame-000001", "unreadable depth"]),
        ("captions.json", b"[" * 100_000, ["a", "", "unusable scan"]),
    ],
)
def test_a_file_that_claims_too_much_costs_its_frame_or_scan(
    name: str, content: bytes, row: list[str], tmp_path: Path
) -> None:
    for scan in ("a", "b"):
        write_scan(tmp_path / "scans" / scan, [])
    (tmp_path / "scans" / "a" / name).write_bytes(content)
    dataset = built(job(tmp_path / "scans", tmp_path / "out"))
    assert dataset is not None
    assert [[each["scene_id"], each["frame_id"], each["reason"]] for each in rows(tmp_path / "out")] == [row]
    views = dataset.manifest.attributes["statistics"]["views"]
    assert views == (2 * FRAMES - 1 if row[1] else FRAMES)
