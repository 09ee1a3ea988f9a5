"""Every image of every layout is stored or rejected with a row: none vanishes."""

from __future__ import annotations

import csv
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.cli import main
from jobs.common.datasets import Dataset
from jobs.lift import command as lift
from jobs.lift.config import LiftJob
from plinth import config
from plinth.errors import DataError
from tests.helpers.lift.image_sets import Photo, encoded, lift_job, photo, write_photos_tar, write_tar
from tests.helpers.tiny_jobs import write


def with_image(made: Photo, content: bytes) -> Photo:
    return Photo(content, made.caption, made.depth, made.intrinsics)


HARM: dict[str, Callable[[Photo], Photo]] = {
    "undecodable image": lambda made: with_image(made, made.image[: len(made.image) // 3]),
    "tiny image": lambda made: with_image(made, encoded(np.zeros((20, 20, 3), np.uint8), "JPEG")),
    "no caption": lambda made: Photo(made.image, " \n", made.depth, made.intrinsics),
    "caption is no text": lambda made: Photo(made.image, "12345", made.depth, made.intrinsics),
    "flat depth": lambda made: Photo(
        made.image, made.caption, encoded(np.full((72, 96), 2000, np.uint16), "PNG"), made.intrinsics
    ),
    "unreadable depth": lambda made: Photo(made.image, made.caption, b"no depth", made.intrinsics),
    "absurd field of view": lambda made: Photo(
        made.image, made.caption, made.depth, [900.0, 900.0, 47.5, 35.5]
    ),
}
"""Reason -> what is done to a photo to get it."""


def photos(harms: Sequence[str | None]) -> list[Photo]:
    made = [photo(seed) for seed in range(len(harms))]
    return [HARM[harm](each) if harm else each for each, harm in zip(made, harms, strict=True)]


def write_as(kind: str, folder: Path, made: Sequence[Photo]) -> dict[str, Any]:
    """The photos as a set of some layout, as an input of a job."""
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "tar":
        members = {}
        for i, each in enumerate(made):
            fields = json.dumps({"intrinsics": each.intrinsics}).encode()
            members |= {f"{i}.jpg": each.image, f"{i}.txt": each.caption.encode()}
            members |= {f"{i}.depth.png": each.depth, f"{i}.json": fields}
        write_tar(folder / "x.tar", members)
    elif kind == "parquet":
        columns = ("image", "caption", "depth", "intrinsics")
        table = pa.table({name: [getattr(each, name) for each in made] for name in columns})
        pq.write_table(table, folder / "x.parquet", row_group_size=3)
    else:
        lines = []
        for i, each in enumerate(made):
            (folder / f"{i}.jpg").write_bytes(each.image)
            (folder / f"{i}.png").write_bytes(each.depth)
            row = {"image": f"{i}.jpg", "depth": f"{i}.png", "caption": each.caption}
            lines.append(json.dumps({**row, "intrinsics": each.intrinsics}))
        (folder / "captions.jsonl").write_text("\n".join(lines))
    return {"uri": str(folder), "kind": kind}


def lifted(output: Path, inputs: list[dict[str, Any]]) -> Dataset | None:
    """The data set; None where nothing of a set was left."""
    try:
        dataset, _ = lift.lift(config.build(LiftJob, [("job", lift_job(output, inputs))]))
    except DataError:
        return None
    return dataset


def rows(output: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((output / "rejects.csv").read_text().splitlines()))


@settings(max_examples=25, deadline=None)
@given(
    kind=st.sampled_from(["tar", "parquet", "folder"]),
    harms=st.lists(st.none() | st.sampled_from(sorted(HARM)), min_size=1, max_size=8),
)
def test_stored_and_rejected_are_all(kind: str, harms: list[str | None]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        dataset = lifted(out, [write_as(kind, Path(folder) / "set", photos(harms))])
        found = Counter(row["reason"] for row in rows(out))
        again = (out / "versions" / "000001" / "rejects.csv").is_file()
    assert found == Counter(harm for harm in harms if harm)
    assert (dataset is not None) == again == any(harm is None for harm in harms)
    if dataset is not None:
        stats = dataset.manifest.attributes["statistics"]
        assert stats["samples"] + stats["rejected_frames"] == len(harms)


def test_the_table_is_there_when_nothing_was_rejected(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_photos_tar(tmp_path / "x.tar", range(3))
    job = write(tmp_path / "job.yaml", lift_job(tmp_path / "out", [{"uri": str(tmp_path / "x.tar")}]))
    assert main(["lift", job]) == 0
    assert (tmp_path / "out" / "rejects.csv").read_text().splitlines() == ["image_id,place,reason,value"]
    assert "most often" not in capsys.readouterr().out


def test_the_last_line_says_what_to_do_about_the_most_frequent_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    harms = ["tiny image", None, "flat depth", "tiny image"]
    made = write_as("tar", tmp_path / "set", photos(harms))
    assert main(["lift", write(tmp_path / "job.yaml", lift_job(tmp_path / "out", [made]))]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert "tiny image, 2 of 3 rejects: lower gates.min_side_px" in last


def test_when_nothing_is_left_the_error_names_one_with_its_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    made = write_as("folder", tmp_path / "set", photos(["tiny image", "unreadable depth", "tiny image"]))
    out = tmp_path / "out"
    assert main(["lift", write(tmp_path / "job.yaml", lift_job(out, [made]))]) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert "2 x tiny image, 1 x unreadable depth; the first is" in line
    assert "0.jpg (20 x 20)" in line
    assert "lower gates.min_side_px" in line
    assert len(rows(out)) == 3
    assert not (out / "MANIFEST.json").exists()
