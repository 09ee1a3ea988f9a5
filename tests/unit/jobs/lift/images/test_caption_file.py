"""Rows of caption files: what is read as it was meant, and what is refused with its line."""

from __future__ import annotations

import json

import pytest

from jobs.lift.images.caption_file import read_rows
from plinth.errors import DataError

LONG = "a chair " * 20_000
BOM = b"\xef\xbb\xbf"


def test_csv_of_quoted_texts() -> None:
    content = b'image,caption\r\n1.jpg,"a chair, a ""red"" table\nand a lamp"\r\n\r\n2.jpg,\r\n'
    for start in (b"", BOM):
        assert read_rows(start + content, "c.csv") == [
            {"image": "1.jpg", "caption": 'a chair, a "red" table\nand a lamp'},
            {"image": "2.jpg", "caption": ""},
        ]


def test_csv_cells_may_be_long() -> None:
    assert read_rows(f"image,caption\n1.jpg,{LONG}\n".encode(), "c.csv")[0]["caption"] == LONG


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('image,caption\n1.jpg,"one\ntwo"\n2.jpg,a chair, a table\n', ["line 4", "3 fields", "'a chair'"]),
        ("image,caption,split\n1.jpg,a chair\n", ["line 2", "2 fields", "has 3", "split"]),
        ('image,caption\n1.jpg,a chair\n2.jpg,"a table\n3.jpg,a lamp\n', ["line 3", "not CSV"]),
        ("image,caption,caption\n1.jpg,a,b\n", ["two columns", "'caption'"]),
    ],
)
def test_csv_rows_that_do_not_fit_are_named(text: str, words: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        read_rows(text.encode(), "s3://b/c.csv")
    assert all(word in str(caught.value) for word in ["s3://b/c.csv", *words]), str(caught.value)


def test_jsonl_is_split_at_line_breaks_alone() -> None:
    rows = [{"image": "1.jpg", "caption": f"a{mark}b"} for mark in "\u2028\u2029\u0085\x1c\x0b\x0c"]
    # Line separators may stand in JSON as they are; control characters are escaped.
    text = "\r\n".join(json.dumps(row, ensure_ascii=row["caption"][1] < " ") for row in rows)
    assert read_rows(BOM + text.encode() + b"\n\n", "c.jsonl") == rows


def test_what_is_no_jsonl_is_named() -> None:
    with pytest.raises(DataError, match=r"c\.jsonl, line 2: not JSON"):
        read_rows(b'{"image": "1.jpg"}\n{"image"\n', "c.jsonl")
    with pytest.raises(DataError, match=r"c.jsonl: not a text file in UTF-8 \(byte 3\)"):
        read_rows(b"[1]\xff\n", "c.jsonl")
