"""What a file is, is told by what stands in it; a mistake names file and line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from poma3d.annotations.formats.parts import Part, open_part
from poma3d.annotations.names import KINDS
from poma3d.annotations.read import kinds, read
from tests.helpers.annotations.layouts import (
    camera_row,
    hypo3d_released,
    msnn_sample,
    nr3d_row,
    scanqa_row,
    scanrefer_row,
    sqa3d,
    sqa3d_answer,
    sqa3d_question,
    sr3d_row,
    write_json,
    write_table,
)

MSQA = {"scan_id": "a", "situation": "x", "question": "y", "answers": ["z"], "orientation": [1, 0, 0]}


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ([scanqa_row(0)], Part.SCANQA),
        ({"questions": [sqa3d_question(0)]}, Part.SQA3D_QUESTIONS),
        ({"annotations": [sqa3d_answer(0)]}, Part.SQA3D_ANSWERS),
        (hypo3d_released(), Part.HYPO3D),
        ({"scene0000_00": {"0": msnn_sample([1, "turn left"], [2, "turn left"])}}, Part.MSNN),
        ([scanrefer_row("a", "1", "0")], Part.SCANREFER),
        ([camera_row("a", "1", "0")], Part.CAMERAS),
        ([{"desk": 0, "u": 1}, {"0": "desk", "1": "u"}], Part.VOCABULARY),
        ({"scene0000_00": {"captions": ["a room"]}}, Part.CAPTIONS),
        ({"scene0000_00": [{"query": "Describe.", "response": "A room."}]}, Part.CAPTIONS),
        ([MSQA], Part.MSQA),
    ],
)
def test_told_by_content(tmp_path: Path, content: Any, part: Part) -> None:
    assert open_part(write_json(tmp_path / "file.json", content)).part is part


def test_a_bad_first_row_hides_nothing(tmp_path: Path) -> None:
    path = write_json(tmp_path / "a.json", ["?", {"scene_id": "a"}, scanqa_row(0)])
    found = read("scanqa", [path])
    assert [problem.row for problem in found.problems] == ["row 1", "row 2"]
    released = {"scene0009_00": [], "scene0008_00": "x", **hypo3d_released()}
    assert open_part(write_json(path, released)).part is Part.HYPO3D


def test_tables_are_told_apart(tmp_path: Path) -> None:
    assert open_part(write_table(tmp_path / "a.csv", [nr3d_row(0)])).part is Part.NR3D
    assert open_part(write_table(tmp_path / "b.csv", [sr3d_row()])).part is Part.SR3D


def test_a_file_of_another_kind_says_of_which(tmp_path: Path) -> None:
    path = write_json(tmp_path / "file.json", [scanqa_row(0)])
    with pytest.raises(ValueError, match="ScanQA's questions: kind scanqa, not sqa3d"):
        read("sqa3d", [path])
    with pytest.raises(ValueError, match="an answer dictionary; give it with --vocabulary"):
        read("sqa3d", [write_json(path, [{"desk": 0}, {"0": "desk"}])])
    with pytest.raises(ValueError, match="MSQA, which is not read here"):
        read("msnn", [write_json(path, [MSQA])])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "line 1, character 1: not JSON"),
        (b'[\n{"scene_id": "a",\n]', "line 3, character 1: not JSON"),
        (b'{"a": [1], "a": [2]}', "key 'a' twice"),
        (b"[" * 100_000, "nested too deeply"),
        (b"\xff\xfe", "not text in UTF-8"),
        (b"[]", "a list without rows"),
        (b"{}", "an empty object"),
        (b'[{"colour": 1}]', "a list of rows with colour"),
        (b"7", "a int"),
    ],
)
def test_a_broken_file_is_one_line(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"file\.json") as caught:
        read("scanqa", [path])
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    path = write_json(tmp_path / "file.json", [scanqa_row(0)])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(read("scanqa", [path]).rows) == 1


def test_missing_twice_and_unknown(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nothing\.json: cannot be read"):
        read("scanqa", [tmp_path / "nothing.json"])
    files = sqa3d(tmp_path)
    with pytest.raises(ValueError, match="given twice"):
        read("sqa3d", [*files, files[0]])
    with pytest.raises(ValueError, match="no kind sqa"):
        read("sqa", files)
    with pytest.raises(ValueError, match="directions are 4 or 8"):
        read("sqa3d", files, directions=5)


def test_no_row_that_can_be_used(tmp_path: Path) -> None:
    path = write_json(tmp_path / "a.json", [scanqa_row(0, question="")])
    with pytest.raises(ValueError, match=r"no row that can be used; the first is .*question is empty"):
        read("scanqa", [path])


def test_the_command_line_offers_all_kinds() -> None:
    assert tuple(kinds()) == KINDS
