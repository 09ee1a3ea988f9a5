"""One bad record never stops `poma lift`: each kind of it is a row with its reason, the others are kept."""

from __future__ import annotations

import csv
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from jobs.lift import command as lift
from jobs.lift.config import LiftJob
from plinth import config
from tests.helpers.lift.image_sets import (
    INTRINSICS,
    captions,
    encoded,
    huge_png,
    lift_job,
    members,
    photo,
    write_folder,
    write_parquet,
    write_photos_tar,
    write_tar,
)

NESTED = b"[" * 100_000
TERABYTE = 1 << 40
GOOD = [photo(0).caption, photo(1).caption]


def lifted(tmp_path: Path, inputs: dict[str, Any], **changes: Any) -> tuple[list[str], list[dict[str, str]]]:
    """First captions of what was kept, and the table of rejects."""
    job = lift_job(tmp_path / "out", [inputs], **changes)
    dataset, _ = lift.lift(config.build(LiftJob, [("job", job)]))
    table = (tmp_path / "out" / "rejects.csv").read_text()
    return captions(dataset), list(csv.DictReader(table.splitlines()))


def fields(**changes: Any) -> bytes:
    return json.dumps({"intrinsics": INTRINSICS, "caption": photo(2).caption, **changes}).encode()


RECORDS: dict[str, tuple[dict[str, bytes], str, str]] = {
    "text that is no Unicode": ({"b.txt": b"a \xff\xfe picture"}, "caption is no text", "can't decode"),
    "half a character": (
        {"b.txt": b"", "b.json": fields(caption="a picture \ud800 of it")}, "caption is no text", r"\ud800"
    ),
    "nested JSON": ({"b.json": NESTED}, "caption is no text", "recursion"),
    "a number without end": (
        {"b.json": b'{"intrinsics": [1' + b"0" * 4000 + b", 1, 1, 1]}"}, "no depth or camera", "none came"
    ),
    "a huge depth picture": ({"b.depth.png": huge_png()}, "unreadable depth", "60000"),
    "a huge picture": ({"b.jpg": huge_png()}, "huge image", "pixels"),
    "a focal length of 0": ({"b.json": fields(intrinsics=[80.0, 0.0, 47.5, 35.5])}, "absurd camera", "0.0"),
    "intrinsics that are no numbers": (
        {"b.json": fields(intrinsics=[float("nan"), 80.0, 47.5, 35.5])}, "absurd camera", "nan"
    ),
    "an empty picture": ({"b.jpg": b""}, "undecodable image", "no picture of a known format"),
    "depth of one byte": ({"b.depth.png": b"P"}, "unreadable depth", "no PNG"),
}  # fmt: skip
"""What replaces members of the sample b -> the reason, and words of what was found."""


@pytest.mark.parametrize("kind", RECORDS)
def test_a_bad_record_of_a_tar_is_a_row(kind: str, tmp_path: Path) -> None:
    harm, reason, words = RECORDS[kind]
    bad = {k: v for k, v in ({**members("b", photo(2)), **harm}).items() if v or k != "b.txt"}
    write_tar(tmp_path / "x.tar", {**members("a", photo(0)), **bad, **members("c", photo(1))})
    kept, rows = lifted(tmp_path, {"uri": str(tmp_path / "x.tar")})
    assert kept == GOOD
    assert [row["reason"] for row in rows] == [reason]
    assert words in rows[0]["value"]


FORMATS = ["JPEG", "PNG", "WEBP", "AVIF", "TIFF", "GIF", "BMP", "JPEG2000", "TGA", "PPM", "ICO", "DDS", "PCX"]


@pytest.mark.parametrize("kind", FORMATS)
def test_a_damaged_picture_of_any_format_is_a_row(kind: str, tmp_path: Path) -> None:
    whole = encoded(np.asarray(Image.open(io.BytesIO(photo(2).image))), kind)
    rng = np.random.default_rng(0)
    noisy = bytearray(whole)
    for at in rng.integers(20, len(whole), 40):
        noisy[at] ^= int(rng.integers(1, 256))
    damaged = {f"cut{share}": whole[: len(whole) * share // 10] for share in (1, 3, 6, 9)}
    damaged |= {"noise": bytes(noisy), "head": whole[:24] + b"\xff" * 400}
    harmed = {
        name: content
        for stem, image in damaged.items()
        for name, content in ({**members(stem, photo(2)), f"{stem}.jpg": image}).items()
    }
    write_tar(tmp_path / "x.tar", {**members("a", photo(0)), **harmed, **members("c", photo(1))})
    # Some formats show what there is of a cut picture, which repeats another or is kept: nothing else may be.
    kept, rows = lifted(tmp_path, {"uri": str(tmp_path / "x.tar")})
    assert kept[0] == GOOD[0]
    assert kept[-1] == GOOD[1]
    assert len(kept) + len(rows) == 2 + len(damaged)
    assert {row["reason"] for row in rows} <= {"undecodable image", "duplicate image", "tiny image"}
    assert all(row["value"] for row in rows)


def header(name: bytes, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A header with a whole checksum that claims `size` bytes."""
    info = tarfile.TarInfo(name.decode("utf-8", "surrogateescape"))
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT, errors="surrogateescape")


def middle(tmp_path: Path) -> tuple[bytes, bytes]:
    """A tar of one photo, cut before its end: bytes with what may follow, and bytes of another."""
    write_photos_tar(tmp_path / "part.tar", [0])
    first = (tmp_path / "part.tar").read_bytes()
    write_photos_tar(tmp_path / "part.tar", [1])
    second = (tmp_path / "part.tar").read_bytes()
    (tmp_path / "part.tar").unlink()
    end = first.rstrip(b"\0")
    return end + b"\0" * (-len(end) % 512), second


HEADERS: dict[str, tuple[bytes, int]] = {
    "a terabyte": (header(b"b.jpg", TERABYTE), 1),
    "a name of a terabyte": (header(b"././@LongLink", TERABYTE, tarfile.GNUTYPE_LONGNAME), 1),
    "attributes of a terabyte": (header(b"b", TERABYTE, tarfile.XHDTYPE), 1),
    "a name that is no UTF-8": (header(b"\xff\xfe.txt", 3) + b"abc".ljust(512, b"\0"), 1),
    "a link": (header(b"b.jpg", 0, tarfile.SYMTYPE), 1),
    "noise": (b"\x5a" * 2048, 1),
    "a Mac's attributes": (header(b"./._000000.jpg", 3) + b"abc".ljust(512, b"\0"), 0),
    "a global header": (
        header(b"pax", 15, tarfile.XGLTYPE) + b"15 comment=abc\n".ljust(512, b"\0"),
        0,
    ),
}
"""What stands between two whole samples -> rows in the table."""


@pytest.mark.parametrize("kind", HEADERS)
def test_what_stands_between_samples_of_a_tar_costs_itself_alone(kind: str, tmp_path: Path) -> None:
    between, expected = HEADERS[kind]
    first, second = middle(tmp_path)
    (tmp_path / "x.tar").write_bytes(first + between + second)
    kept, rows = lifted(tmp_path, {"uri": str(tmp_path / "x.tar")})
    assert kept == GOOD
    assert len(rows) == expected, rows
    assert all(row["place"].isprintable() for row in rows)


def test_a_tar_broken_in_the_middle_keeps_what_stands_before(tmp_path: Path) -> None:
    first, second = middle(tmp_path)
    (tmp_path / "x.tar").write_bytes(first + second[:700] + b"\xa5" * 5000)
    kept, rows = lifted(tmp_path, {"uri": str(tmp_path / "x.tar")})
    assert kept == GOOD[:1]
    assert "broken archive" in {row["reason"] for row in rows}


def test_names_with_dots_and_pictures_apart_from_captions_name_the_rule(tmp_path: Path) -> None:
    dotted = {name.replace("b.", "b1.5m."): content for name, content in members("b", photo(2)).items()}
    apart = members("d", photo(3))
    caption = {"d.txt": apart.pop("d.txt")}
    write_tar(
        tmp_path / "x.tar", {**members("a", photo(0)), **apart, **dotted, **members("c", photo(1)), **caption}
    )
    kept, rows = lifted(tmp_path, {"uri": str(tmp_path / "x.tar")})
    assert kept == GOOD
    assert [row["reason"] for row in rows] == ["no caption", "no image", "no image"]
    assert "a sample's name ends at the first dot" in rows[1]["value"]
    assert "those of a sample must stand together" in rows[2]["value"]


def test_a_second_picture_of_the_same_name_is_a_sample_of_its_own(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for seed in (0, 1):
            for name, content in members("a", photo(seed)).items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    assert lifted(tmp_path, {"uri": str(tmp_path / "x.tar")}) == (GOOD, [])


@pytest.mark.parametrize(("kind", "writer"), [("parquet", write_parquet), ("tar", write_photos_tar)])
def test_what_a_mac_leaves_beside_files_is_no_data(
    kind: str, writer: Callable[..., None], tmp_path: Path
) -> None:
    writer(tmp_path / "set" / f"x.{kind}", [0, 1])
    (tmp_path / "set" / f"._x.{kind}").write_bytes(b"\0\5\x16\7 attributes")
    (tmp_path / "set" / ".cache").mkdir()
    (tmp_path / "set" / ".cache" / f"y.{kind}").write_bytes(b"half of a download")
    assert lifted(tmp_path, {"uri": str(tmp_path / "set"), "kind": kind}) == (GOOD, [])


def test_a_file_whose_name_is_no_utf8(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    write_photos_tar(tmp_path / "x.tar", [0, 1])
    (tmp_path / "x.tar").rename(tmp_path / "set" / os.fsdecode(b"\xff.tar"))
    write_tar(tmp_path / "set" / "y.tar", {"1.txt": b"words"})
    kept, rows = lifted(tmp_path, {"uri": str(tmp_path / "set")})
    assert (kept, [row["reason"] for row in rows]) == (GOOD, ["no image"])


def test_odd_values_of_parquet_are_rows(tmp_path: Path) -> None:
    """Text that is no UTF-8 in a column of texts, and lists of pictures."""
    first, second = photo(0), photo(1)
    said = [first.caption.encode(), b"\xff\xfe no text", second.caption.encode(), second.caption.encode()]
    table = pa.table(
        {
            "image": [[first.image], [second.image], [first.image, second.image], [second.image]],
            "caption": pa.array(said, pa.binary()).view(pa.string()),
            "depth": [first.depth, second.depth, second.depth, second.depth],
            "intrinsics": [INTRINSICS] * 4,
        }
    )
    pq.write_table(table, tmp_path / "x.parquet")
    kept, rows = lifted(tmp_path, {"uri": str(tmp_path / "x.parquet"), "kind": "parquet"})
    assert kept == GOOD
    assert [row["reason"] for row in rows] == ["caption is no text", "no image"]
    assert "x.parquet row 1" in rows[0]["place"]
    assert "column 'caption'" in rows[0]["value"]
    assert "a list of 2 pictures" in rows[1]["value"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"image": "pictures"}, "no such image"),
        ({"image": "pictures/0.jpg/x"}, "no such image"),
        ({"image": "a caption in the place of a path " * 20}, "no such image"),
        ({"image": "../x.jpg"}, "no such image"),
        ({"image": "a\0.jpg"}, "no such image"),
        ({"image": "\udcff.jpg"}, "no such image"),
        ({"image": 3}, "no image"),
        ({"image": ["pictures/0.jpg", "pictures/1.jpg"]}, "no image"),
        ({"image": ""}, "no image"),
        ({"caption": "half \ud800 of a character"}, "caption is no text"),
    ],
)
def test_a_bad_line_of_a_caption_file_is_a_row(row: dict[str, Any], reason: str, tmp_path: Path) -> None:
    write_folder(tmp_path / "set", [0, 1])
    with (tmp_path / "set" / "captions.jsonl").open("a") as file:
        whole = {"image": "pictures/0.jpg", "depth": "pictures/0.png", "caption": "words"}
        file.write(json.dumps({**whole, "intrinsics": INTRINSICS, **row}) + "\n")
    kept, rows = lifted(tmp_path, {"uri": str(tmp_path / "set"), "kind": "folder"})
    assert (kept, [found["reason"] for found in rows]) == (GOOD, [reason])
