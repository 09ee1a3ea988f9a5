"""Layouts of image sets: the same photos from each, read again by locators, and what is broken in them."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.lift.images.config import ImageSetConfig, SetKind
from jobs.lift.images.registry import open_set
from jobs.lift.images.sets import BadRecord, ImageRecord, texts
from plinth.errors import ConfigError, DataError
from plinth.storage import StorageOptions
from tests.helpers.lift.image_sets import (
    INTRINSICS,
    members,
    photo,
    write_folder,
    write_parquet,
    write_photos_tar,
    write_tar,
)

SEEDS = list(range(10))
OPTIONS = StorageOptions()


def scanned(config: ImageSetConfig) -> list[ImageRecord | BadRecord]:
    image_set = open_set(config, OPTIONS)
    return [found for piece in image_set.pieces() for found in image_set.scan(piece)]


def good(config: ImageSetConfig) -> list[ImageRecord]:
    return [found for found in scanned(config) if isinstance(found, ImageRecord)]


def bad(config: ImageSetConfig) -> list[BadRecord]:
    return [found for found in scanned(config) if isinstance(found, BadRecord)]


def write_set(folder: Path, kind: str) -> ImageSetConfig:
    if kind == "tar":
        write_photos_tar(folder / "a" / "00000.tar", SEEDS[:6])
        write_photos_tar(folder / "a" / "00001.tar", SEEDS[6:])
    elif kind == "parquet":
        write_parquet(folder / "train-0.parquet", SEEDS[:6])
        write_parquet(folder / "train-1.parquet", SEEDS[6:])
    else:
        write_folder(folder, SEEDS, f"captions.{kind}")
        return ImageSetConfig(str(folder), SetKind.folder, caption_file=f"captions.{kind}", lines_per_piece=4)
    return ImageSetConfig(str(folder), SetKind[kind])


@pytest.mark.parametrize("kind", ["tar", "parquet", "jsonl", "csv"])
def test_every_layout_gives_the_same_images_under_the_same_ids(kind: str, tmp_path: Path) -> None:
    config = write_set(tmp_path / "other", "tar")
    expected = {r.image_id: r for r in good(config)}
    records = good(write_set(tmp_path / kind, kind))
    assert [r.image_id for r in records] == list(expected)
    for record, seed in zip(records, SEEDS, strict=True):
        made = photo(seed)
        assert (record.image, record.captions, record.depth) == (made.image, [made.caption], made.depth)
        assert record.intrinsics == INTRINSICS


@pytest.mark.parametrize("kind", ["tar", "parquet", "jsonl", "csv"])
def test_images_are_read_again_by_their_locators(kind: str, tmp_path: Path) -> None:
    image_set = open_set(write_set(tmp_path, kind), OPTIONS)
    pieces = pickle.loads(pickle.dumps(image_set.pieces()))
    assert len({piece.identity for piece in pieces}) == len(pieces) >= 2
    for piece in pieces:
        wanted = list(image_set.scan(piece))[1::2]
        again = list(image_set.read(piece, [record.locator for record in wanted]))
        assert again == wanted


def test_captions_may_stand_in_the_json_and_be_several(tmp_path: Path) -> None:
    files = members("a/1", photo(0), "json")
    several = json.dumps({"said": ["one thing", "another"]}).encode()
    write_tar(tmp_path / "x.tar", {**files, "a/2.png": photo(1).image, "a/2.json": several})
    assert [r.captions for r in good(ImageSetConfig(str(tmp_path / "x.tar")))] == [[photo(0).caption], []]
    assert [r.captions for r in good(ImageSetConfig(str(tmp_path / "x.tar"), caption="said"))] == [
        [],
        ["one thing", "another"],
    ]


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_sets_behind_links_are_read(kind: str, tmp_path: Path) -> None:
    write_set(tmp_path / "disk", kind)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "all").symlink_to(tmp_path / "disk")
    config = ImageSetConfig(str(tmp_path / "set"), SetKind[kind])
    assert [record.captions for record in good(config)] == [[photo(seed).caption] for seed in SEEDS]


def test_a_broken_member_costs_that_member(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    write_photos_tar(path, SEEDS[:4])
    locators = [json.loads(record.locator) for record in good(ImageSetConfig(str(tmp_path)))]
    content = bytearray(path.read_bytes())
    header = locators[1]["jpg"][0] - 512
    content[header : header + 100] = b"\xff" * 100
    path.write_bytes(content)
    found = scanned(ImageSetConfig(str(tmp_path)))
    assert [r.captions[0] for r in found if isinstance(r, ImageRecord)] == [
        photo(s).caption for s in (0, 2, 3)
    ]
    reasons = {r.reason: r for r in found if isinstance(r, BadRecord)}
    assert set(reasons) == {"broken archive", "no image"}
    assert f"x.tar at byte {header}" in reasons["broken archive"].place


def test_a_tar_that_ends_early_gives_what_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    write_photos_tar(path, SEEDS[:3])
    last = json.loads(good(ImageSetConfig(str(tmp_path)))[-1].locator)
    path.write_bytes(path.read_bytes()[: last["jpg"][0] + 100])
    found = scanned(ImageSetConfig(str(tmp_path)))
    assert len([r for r in found if isinstance(r, ImageRecord)]) == 2
    assert "100 of" in next(r.value for r in found if isinstance(r, BadRecord))


def test_what_is_no_tar_at_all_is_one_bad_record(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"<html>not found</html>" * 1000)
    [record] = scanned(ImageSetConfig(str(tmp_path)))
    assert isinstance(record, BadRecord)
    assert record.reason == "broken archive"


def test_samples_without_an_image_or_with_odd_captions(tmp_path: Path) -> None:
    write_tar(
        tmp_path / "x.tar",
        {
            "1.txt": b"words alone",
            "2.jpg": photo(0).image,
            "2.txt": b"\xff\xfe\xfa",
            "3.jpg": photo(1).image,
            "3.json": b"[1, 2]",
        },
    )
    assert [(r.reason) for r in bad(ImageSetConfig(str(tmp_path)))] == [
        "no image",
        "caption is no text",
        "caption is no text",
    ]


def test_parquet_paths_lead_to_another_folder_and_may_miss(tmp_path: Path) -> None:
    write_folder(tmp_path / "photos", [0])
    (tmp_path / "tables").mkdir()
    rows = {"url": ["pictures/0.jpg", "pictures/9.jpg", None, "../x"], "text": [["a", "b"]] * 4}
    pq.write_table(pa.table(rows), tmp_path / "tables" / "x.parquet")
    config = ImageSetConfig(
        str(tmp_path / "tables"), SetKind.parquet, image="url", caption="text",
        images_uri=str(tmp_path / "photos"),
    )  # fmt: skip
    [record] = good(config)
    assert (record.image, record.captions) == (photo(0).image, ["a", "b"])
    assert [r.reason for r in bad(config)] == ["no such image", "no image", "no such image"]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            {"kind": SetKind.parquet, "image": "jpg"},
            "no column 'jpg' (inputs.image); there are image, caption",
        ),
        ({"kind": SetKind.parquet, "caption": "alt"}, "no column 'alt' (inputs.caption)"),
        (
            {"kind": SetKind.folder, "caption": "alt"},
            "no field 'image' or 'alt'; there are image, depth, caption",
        ),
        ({"kind": SetKind.folder, "caption_file": "words.jsonl"}, "words.jsonl does not exist"),
        ({"kind": SetKind.folder, "caption_file": "broken.jsonl"}, "broken.jsonl, line 1: not JSON"),
        ({"kind": SetKind.folder, "caption_file": "latin.csv"}, "not a text file in UTF-8"),
        ({"kind": SetKind.tar}, "holds no .tar file"),
    ],
)
def test_a_set_that_is_not_what_the_job_says(config: dict, words: str, tmp_path: Path) -> None:
    write_parquet(tmp_path / "x.parquet", [0])
    write_folder(tmp_path, [0])
    (tmp_path / "broken.jsonl").write_text("{")
    (tmp_path / "latin.csv").write_bytes(b"image,caption\n\xe9,\xe9\n")
    with pytest.raises((ConfigError, DataError)) as caught:
        scanned(ImageSetConfig(str(tmp_path), **config))
    assert words in str(caught.value)


def test_what_is_no_parquet_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(DataError, match=r"x\.parquet: cannot be read as Parquet"):
        scanned(ImageSetConfig(str(tmp_path), SetKind.parquet))


def test_lines_that_are_added_leave_earlier_pieces_known(tmp_path: Path) -> None:
    config = ImageSetConfig(str(tmp_path), SetKind.folder, lines_per_piece=2)
    write_folder(tmp_path, SEEDS[:4])
    before = [piece.identity for piece in open_set(config, OPTIONS).pieces()]
    write_folder(tmp_path, SEEDS[:7])
    after = [piece.identity for piece in open_set(config, OPTIONS).pieces()]
    assert after[:2] == before
    assert len(after) == 4


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a chair", ["a chair"]),
        (b"a chair", ["a chair"]),
        (b"\xff", ["\udcff"]),
        (["a", ["b", (b"c", 1)], None], ["a", "b", "c"]),
        ('["a chair", "a table"]', ["a chair", "a table"]),
        ("[a chair]", ["[a chair]"]),
        ("[1, 2]", ["[1, 2]"]),
        ("[" * 100_000 + "]", ["[" * 100_000 + "]"]),
        (None, []),
        (3, []),
    ],
)
def test_captions_of_a_field(value: object, expected: list[str]) -> None:
    assert texts(value) == expected
