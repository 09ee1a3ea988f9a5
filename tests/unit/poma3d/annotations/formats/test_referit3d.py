"""Nr3D and Sr3D: columns by name, booleans in any spelling, the default filter, the ceiling on R@1."""

from __future__ import annotations

from pathlib import Path

import pytest

from poma3d.annotations.read import read
from tests.helpers.annotations.layouts import nr3d_row, sr3d_row, write_lines, write_table


@pytest.mark.parametrize("written", ["True", "TRUE", "true", " true ", "1", "Yes", "t"])
def test_true_in_any_spelling(tmp_path: Path, written: str) -> None:
    found = read("nr3d", [write_table(tmp_path / "nr3d.csv", [nr3d_row(0, mentions_target_class=written)])])
    assert len(found.rows) == 1


@pytest.mark.parametrize("written", ["False", "FALSE", "false", "0", "No", "f"])
def test_false_in_any_spelling_is_not_truthy(tmp_path: Path, written: str) -> None:
    rows = [nr3d_row(0), nr3d_row(1, mentions_target_class=written), nr3d_row(2, correct_guess=written)]
    found = read("nr3d", [write_table(tmp_path / "nr3d.csv", rows)])
    assert found.left_out == {"does not mention the target's class": 1}
    assert len(found.rows) == 2
    assert found.oddities["wrong guess"].count == 1


@pytest.mark.parametrize(("tokens", "kept"), [(24, 1), (25, 0)])
def test_long_rows_are_filtered_by_tokens(tmp_path: Path, tokens: int, kept: int) -> None:
    rows = [nr3d_row(0), nr3d_row(1, tokens=str(["a"] * tokens))]
    found = read("nr3d", [write_table(tmp_path / "nr3d.csv", rows)])
    assert len(found.rows) == 1 + kept
    assert found.left_out.total() == 1 - kept


def test_the_text_is_the_utterance_not_its_tokens(tmp_path: Path) -> None:
    row = nr3d_row(0, utterance='The gray "can", 3rd door.', tokens="""['the', 'grey', "'s", 'can']""")
    found = read("nr3d", [write_table(tmp_path / "nr3d.csv", [row])])
    assert found.utterances[0].text == 'The gray "can", 3rd door.'
    assert found.oddities["tokens respelt"].count == 1
    assert found.utterances[0].object_name == "trash can"


def test_columns_are_read_by_name(tmp_path: Path) -> None:
    nr3d = read("nr3d", [write_table(tmp_path / "nr3d.csv", [nr3d_row(0)])]).utterances[0]
    sr3d = read("sr3d", [write_table(tmp_path / "sr3d.csv", [sr3d_row()])]).utterances[0]
    assert (nr3d.scene_id, nr3d.object_id) == (sr3d.scene_id, sr3d.object_id) == ("scene0000_00", "7")


def test_as_json_lines(tmp_path: Path) -> None:
    row = {"scan_id": "scene0000_00", "utterance": "the can", "item_id": "x", "target_id": 7}
    path = write_lines(tmp_path / "nr3d.jsonl", [{**row, "instance_type": "can", "tokens": ["the", "can"]}])
    assert read("nr3d", [path]).utterances[0].object_id == "7"


def test_equal_texts_of_scans_and_rooms(tmp_path: Path) -> None:
    scans = ["scene0000_00", "scene0000_01", "scene0001_00", "scene0002_00", "scene0003_00", "scene0003_01"]
    texts = ["near the bed", "near the bed", "near the bed", "alone", "twin", "twin"]
    rows = [
        sr3d_row(scan_id=scan, utterance=text, stimulus_id=f"{scan}-trash_can-2-7-9")
        for scan, text in zip(scans, texts, strict=True)
    ]
    odd = read("sr3d", [write_table(tmp_path / "sr3d.csv", rows)]).oddities
    assert odd["texts of several scans"].count == 5
    assert odd["texts of several rooms"].count == 3
    assert odd["rooms scanned several times"].count == 2
    assert "stimulus names another object" not in odd


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"mentions_target_class": "maybe"}, "neither true nor false"),
        ({"tokens": "the can"}, "tokens is no list"),
        ({"tokens": "__import__('os').getcwd()"}, "tokens is no list"),
        ({"tokens": "{'a': 1}"}, "tokens is no list"),
        ({"utterance": "  "}, "utterance is empty"),
    ],
)
def test_bad_rows_are_named_by_line(tmp_path: Path, changed: dict[str, str], says: str) -> None:
    rows = [nr3d_row(0, utterance="two\nlines"), nr3d_row(1, **changed)]
    found = read("nr3d", [write_table(tmp_path / "nr3d.csv", rows)])
    [problem] = found.problems
    assert says in problem.reason
    assert problem.row == "line 4", "the first row takes two lines"


def test_a_row_of_another_width(tmp_path: Path) -> None:
    path = write_table(tmp_path / "nr3d.csv", [nr3d_row(0)])
    path.write_text(path.read_text() + "1,2,3\n")
    found = read("nr3d", [path])
    assert [problem.reason for problem in found.problems] == ["3 cells, 9 columns"]


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda text: text.replace("target_id", "target"), "no column target_id"),
        (lambda text: text.replace("assignmentid", "scan_id"), "named twice"),
        (lambda text: text.replace("The trash", '"The trash', 1), "not CSV"),
    ],
)
def test_a_broken_table_is_refused(tmp_path: Path, edit: object, says: str) -> None:
    path = write_table(tmp_path / "nr3d.csv", [nr3d_row(0)])
    assert callable(edit)
    path.write_text(edit(path.read_text()))
    with pytest.raises(ValueError, match=says):
        read("nr3d", [path])


def test_the_stimulus_is_compared_with_the_columns(tmp_path: Path) -> None:
    rows = [
        nr3d_row(0),
        nr3d_row(1, target_id="8"),
        nr3d_row(2, stimulus_id="scene0000_00-trash_can-2-7-9-10"),
    ]
    found = read("nr3d", [write_table(tmp_path / "nr3d.csv", rows)])
    assert found.oddities["stimulus names another object"].count == 1
