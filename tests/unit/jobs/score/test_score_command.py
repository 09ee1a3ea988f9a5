"""`poma score` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.cli import main
from poma3d.annotations import rooms
from poma3d.annotations.rows import Question
from tests.helpers.annotations.layouts import (
    FIRST_ID,
    SQA3D_ROWS,
    hypo3d_released,
    msnn_converted,
    scanqa_row,
    situated_pose,
    situation,
    sqa3d,
    sqa3d_answer,
    sqa3d_question,
    write_json,
    write_lines,
    write_localisation,
    write_sqa3d,
)


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    [line] = capsys.readouterr().err.strip().splitlines()
    return line


def score(
    task: str, files: list[Path], predictions: list[dict[str, Any]], folder: Path, *flags: object
) -> tuple[int, dict[str, Any]]:
    """Exit code and what was written to the JSON file; an empty record where there is none."""
    given = write_lines(folder / "predictions.jsonl", predictions)
    out = folder / "score.json"
    words = ["--annotations", *files, "--predictions", given, "--json", out, *flags]
    code = main(["score", task, *map(str, words)])
    return code, json.loads(out.read_text()) if out.exists() else {}


def test_json_has_the_documented_form_and_text_the_protocols(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = sqa3d(tmp_path, 3)
    predictions = [
        {"question_id": FIRST_ID, "answers": ["bed", "desk"]},
        {"question_id": str(FIRST_ID + 1), "answers": ["desk"]},
    ]
    code, record = score("sqa3d", files, predictions, tmp_path)
    assert code == 0
    assert record["options"] == {"k": 10, "question_types": "prefix", "unknown_answers": None}
    assert (record["task"], record["rows"], record["missing"]) == ("sqa3d", 3, 1)
    assert record["figures"] == {
        "raw": 100 / 3, "strict": 100 / 3, "leo": 100 / 3, "refined": 100 / 3, "em10": 200 / 3,
    }  # fmt: skip
    assert record["by_type"]["what"] == {"rows": 3, "missing": 1, "figures": record["figures"]}
    text = capsys.readouterr().out
    assert "3 rows, 1 missing: they count as wrong" in text
    assert all(protocol in text for protocol in record["protocols"].values())
    assert "33.33 %" in text
    assert {path.name for path in tmp_path.glob("score*")} == {"score.json"}


def test_every_task(tmp_path: Path) -> None:
    scanqa = [write_json(tmp_path / "s.json", [scanqa_row(0, "dark brown", "brown")])]
    _, record = score("scanqa", scanqa, [{"question_id": "val-scene0000-0", "answer": "brown"}], tmp_path)
    assert record["figures"] == {"raw": 100.0, "strict": 100.0, "leo": 0.0, "refined": 100.0}
    hypo3d = [write_json(tmp_path / "h.json", hypo3d_released())]
    _, record = score("hypo3d", hypo3d, [{"question_id": "00000", "answer": "to the left of"}], tmp_path)
    assert record["figures"]["hypo3d_em"] == pytest.approx(100 / 3)
    assert set(record["by_type"]) == {"Direction", "Scale", "Semantic", "Movement Change", "Removal Change"}
    msnn = msnn_converted(tmp_path, "turn to foward left")
    _, record = score(
        "msnn", msnn, [{"question_id": 0, "answer": "turn to forward left"}], tmp_path, "--directions", 8
    )
    assert record["figures"] == {"accuracy8": 100.0, "invalid": 0.0}
    poses = write_localisation(tmp_path, [situated_pose(0)], [situation(0)])
    guess = {"situation_id": FIRST_ID, "positions": [[9, 9, 9], [0.5, -1, 5]], "rotations": [[0, 0, 0, 1]]}
    _, record = score("localisation", poses, [guess], tmp_path)
    assert record["figures"]["position_0.5m"] == 100.0
    assert record["figures"]["rotation_30deg"] == 0.0


def test_questions_about_rooms_are_scored_by_type(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [
        Question(
            scene_id="room-0", question_id=f"room-0-{i}", question="?", answers=(answer,), question_type=kind
        )
        for i, (kind, answer) in enumerate([("count", "four"), ("count", "two"), ("left", "chair")])
    ]
    file = tmp_path / "questions.jsonl"
    file.write_text(rooms.write(asked) + "{}\n")
    said = [("room-0-0", "Four"), ("room-0-1", "two")]
    code, record = score("rooms", [file], [{"question_id": i, "answer": a} for i, a in said], tmp_path)
    assert code == 0
    assert (record["rows"], record["missing"]) == (3, 1)
    assert record["figures"] == {"raw": pytest.approx(100 / 3), "strict": pytest.approx(200 / 3)}
    assert {name: part["figures"]["strict"] for name, part in record["by_type"].items()} == {
        "count": 100.0, "left": 0.0,
    }  # fmt: skip
    assert "1 bad rows of the annotations are left out\n" in capsys.readouterr().out
    assert score("rooms", [tmp_path / "none"], [{"question_id": "a", "answer": "b"}], tmp_path)[0] == 2
    assert "none cannot be read" in one_line(capsys)


def test_unknown_answers_are_never_a_silent_choice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = write_sqa3d(tmp_path, [sqa3d_question(0)], [sqa3d_answer(0, "armoire")])
    vocabulary = write_json(tmp_path / "answer_dict.json", [{"u": 0, "desk": 1}, {"0": "u", "1": "desk"}])
    given = [{"question_id": FIRST_ID, "answer": "u"}]
    code, _ = score("sqa3d", files, given, tmp_path, "--vocabulary", vocabulary)
    assert code == 2
    assert "Say wrong, class_u or impossible" in one_line(capsys)
    other = [{"question_id": FIRST_ID, "answer": "table"}]
    code, _ = score("sqa3d", files, other, tmp_path, "--vocabulary", vocabulary, "--unknown-answers", "wrong")
    assert code == 2
    said = one_line(capsys)
    assert "predictions.jsonl, line 1" in said
    assert "trained with another one" in said
    for choice, raw in (("wrong", 0.0), ("class_u", 100.0), ("impossible", 0.0)):
        flags = ["--vocabulary", vocabulary, "--unknown-answers", choice]
        _, record = score("sqa3d", files, given, tmp_path, *flags)
        assert record["figures"]["raw"] == raw
        assert choice in record["remarks"][0]


def test_annotations_that_are_bad_are_said(tmp_path: Path) -> None:
    rows = [scanqa_row(0), scanqa_row(1, question="")]
    path = write_json(tmp_path / "s.json", rows)
    _, record = score("scanqa", [path], [{"question_id": "val-scene0000-0", "answer": "brown"}], tmp_path)
    assert record["rows"] == 1
    assert "1 bad rows of the annotations are left out" in record["remarks"][0]


@pytest.mark.parametrize(
    ("task", "predictions", "flags", "says"),
    [
        ("sqa3d", [{"question_id": 7, "answer": "a"}], [], "another data set or split"),
        ("sqa3d", [{"question_id": FIRST_ID}], [], "predictions.jsonl, line 1: no answer or answers"),
        ("sqa3d", [{"question_id": FIRST_ID, "answer": "a"}] * 2, [], "line 2: the id"),
        ("sqa3d", [], [], "no predictions"),
        ("sqa3d", [{"question_id": FIRST_ID, "answer": "a"}], ["--k", "0"], "--k is 0"),
        ("scanqa", [{"question_id": FIRST_ID, "answer": "a"}], [], "kind sqa3d, not scanqa"),
        (
            "sqa3d",
            [{"question_id": 1, "answer": "a"}],
            ["--unknown-answers", "wrong"],
            "without --vocabulary",
        ),
        ("sqa3d", [{"question_id": 1, "answer": "a"}], ["--json", "nowhere/x.json"], "no folder nowhere"),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_written(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    task: str,
    predictions: list[dict[str, Any]],
    flags: list[str],
    says: str,
) -> None:
    code, record = score(task, sqa3d(tmp_path), predictions, tmp_path, *flags)
    assert code == 2
    assert says in one_line(capsys)
    assert record == {}


@pytest.mark.skipif(not SQA3D_ROWS.is_dir(), reason="the real rows are not beside the tree")
def test_the_true_answers_of_real_rows(tmp_path: Path) -> None:
    """Right by every rule; but a classifier that has no class for 19 of 71 cannot give them."""
    files = sorted(SQA3D_ROWS.glob("v1_balanced_*.json"))
    rows = json.loads(files[1].read_text())["annotations"]
    true = [{"question_id": row["question_id"], "answer": row["answers"][0]["answer"]} for row in rows]
    _, record = score("sqa3d", files, true, tmp_path)
    assert record["figures"] == {"raw": 100.0, "strict": 100.0, "leo": 100.0, "refined": 100.0}
    assert sum(part["rows"] for part in record["by_type"].values()) == record["rows"] == 71
    vocabulary = SQA3D_ROWS / "answer_dict.json"
    known = json.loads(vocabulary.read_text())[0]
    best = [row if row["answer"] in known else {**row, "answer": "u"} for row in true]
    for unknown, raw in (("wrong", 100 * 52 / 71), ("class_u", 100.0)):
        flags = ["--vocabulary", vocabulary, "--unknown-answers", unknown]
        _, record = score("sqa3d", files, best, tmp_path, *flags)
        assert record["figures"]["raw"] == pytest.approx(raw)


def test_a_test_set_without_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = write_sqa3d(tmp_path, [sqa3d_question(0)], None)
    code, _ = score("sqa3d", files, [{"question_id": FIRST_ID, "answer": "a"}], tmp_path)
    assert code == 2
    assert "the annotations have no answers" in one_line(capsys)


def test_a_file_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "score.json").mkdir()
    given = write_lines(tmp_path / "p.jsonl", [{"question_id": FIRST_ID, "answer": "desk"}])
    words = ["--annotations", *sqa3d(tmp_path), "--predictions", given, "--json", tmp_path / "score.json"]
    assert main(["score", "sqa3d", *map(str, words)]) == 2
    assert "score.json: cannot be written" in one_line(capsys)
    assert not list(tmp_path.glob("*.part"))
