"""`poma annotations check` as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.cli import main
from poma3d.annotations.notes import ODDITIES
from tests.helpers.annotations.layouts import (
    FIRST_ID,
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
    write_lines,
    write_scan,
    write_sqa3d,
    write_table,
)
from tests.helpers.scans import ALIGNMENT

HEAVY = {"torch", "ray", "deepspeed", "transformers", "matplotlib", "PIL", "pyarrow"}


def check(capsys: pytest.CaptureFixture[str], kind: str, *words: object) -> tuple[int, dict[str, Any]]:
    """Exit code and the record of --json."""
    code = main(["annotations", "check", kind, *map(str, words), "--json"])
    record: dict[str, Any] = json.loads(capsys.readouterr().out)
    return code, record


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    [line] = capsys.readouterr().err.strip().splitlines()
    return line


def test_a_good_split_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = sqa3d(tmp_path, 3)
    assert main(["annotations", "check", "sqa3d", *map(str, files)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "sqa3d"
    assert lines[-1] == "nothing is bad"
    text = "\n".join(lines)
    for said in ("3 in 3 scenes", "what 3", "0 rows without", "--scans FOLDER", "ids beyond int32 (3)"):
        assert said in text


def test_vocabulary_poses_and_scenes(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    numbers = range(4)
    scenes = {number: f"scene{number:04d}_00" for number in numbers}
    answers = [sqa3d_answer(number, "desk" if number else "armoire") for number in numbers]
    files = write_sqa3d(tmp_path, [sqa3d_question(number) for number in numbers], answers)
    vocabulary = write_json(tmp_path / "answer_dict.json", [{"u": 0, "desk": 1}, {"0": "u", "1": "desk"}])
    points = np.array([[0, 0, 0], [2, 2, 2]], np.float64)
    scans = tmp_path / "scans"
    write_scan(scans, scenes[0], ALIGNMENT, points)
    write_scan(scans, scenes[1], None, points)
    write_scan(scans, scenes[2], ALIGNMENT)
    flags = ["--vocabulary", vocabulary, "--scans", scans, "--scenes", made / "rooms"]
    code, record = check(capsys, "sqa3d", *files, *flags)
    assert code == 0
    assert record["vocabulary"] == {"size": 2, "rows_without": 1, "unknown": {"armoire": 1}}
    assert record["absent_scenes"] == list(scenes.values())
    [poses] = record["poses"]
    assert (poses["rows"], poses["converted"]) == (4, 2)
    moved = (ALIGNMENT @ [1.5, 0, 1, 1])[:3]
    np.testing.assert_allclose(poses["lowest"], np.minimum(moved, [1.5, 0, 1]))
    assert poses["unaligned"] == {scenes[1]: 1}
    assert list(poses["missing"].values()) == [{scenes[2]: 1}, {scenes[3]: 1}]


def test_scenes_that_the_data_set_has(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from jobs.common.datasets import open_dataset
    from plinth.storage import StorageOptions

    [known, *_] = sorted(open_dataset(str(made / "rooms"), StorageOptions()).scene_ids())
    path = write_json(tmp_path / "a.json", [scanqa_row(0, scene_id=known), scanqa_row(1)])
    _, record = check(capsys, "scanqa", path, "--scenes", made / "rooms")
    assert record["absent_scenes"] == ["scene0001_00"]


def test_every_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    msnn = {"scene0000_00": {"0": msnn_sample([4, "move forward"], [8, "move forward"])}}
    files = {
        "scanqa": write_json(tmp_path / "a.json", [scanqa_row(0)]),
        "hypo3d": write_json(tmp_path / "b.json", hypo3d_released()),
        "msnn": write_json(tmp_path / "c.json", msnn),
        "scanrefer": write_json(tmp_path / "d.json", [scanrefer_row("scene0000_00", "1", "0")]),
        "nr3d": write_table(tmp_path / "e.csv", [nr3d_row(0)]),
        "sr3d": write_table(tmp_path / "f.csv", [sr3d_row()]),
        "retrieval": write_lines(tmp_path / "g.jsonl", [{"scan_id": "a", "utterance": "b"}]),
        "localisation": write_json(tmp_path / "h.json", [camera_row("scene0000_00", "1", "0")]),
    }
    for kind, path in files.items():
        code, record = check(capsys, kind, path)
        assert code == 0, kind
        assert record["rows"] >= 1
        assert all(each["meaning"] == ODDITIES[name] for name, each in record["odd"].items())
        assert main(["annotations", "check", kind, str(path)]) == 0
        assert capsys.readouterr().out.startswith(f"{kind}\n")


def test_bad_rows_are_named_and_the_exit_code_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    questions = [sqa3d_question(number) for number in range(14)]
    bad = [sqa3d_answer(number, answers=[]) for number in range(1, 14)]
    files = write_sqa3d(tmp_path, questions, [sqa3d_answer(0), *bad])
    assert main(["annotations", "check", "sqa3d", *map(str, files)]) == 2
    text = capsys.readouterr().out
    assert f"row 2 (id {FIRST_ID + 1}): a row without an answer" in text
    assert "and 3 more: --json lists all" in text
    assert text.endswith("13 bad rows are kept without their bad part\n")
    code, record = check(capsys, "sqa3d", *files)
    assert code == 2
    assert len(record["bad"]) == 13
    assert record["without_answers"] == 13


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_json(tmp_path / "a.json", [scanqa_row(0)])
    for words, says in (
        (["sqa3d", path], "ScanQA's questions: kind scanqa, not sqa3d"),
        (["scanqa", tmp_path / "b.json"], "cannot be read"),
        (["scanqa", path, "--scans", tmp_path / "none"], "no such folder of scans"),
        (["scanqa", path, "--vocabulary", tmp_path / "none.json"], "cannot be read"),
        (["scanqa", path, "--scenes", tmp_path / "none"], "none"),
    ):
        assert main(["annotations", "check", *map(str, words)]) == 2
        assert says in one_line(capsys)


def test_texts_of_files_are_escaped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [sr3d_row(instance_type="\x1b[31mcan"), sr3d_row(scan_id="a\x1b[0m", tokens="x\x1b[0m")]
    assert main(["annotations", "check", "sr3d", str(write_table(tmp_path / "a.csv", rows))]) == 2
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert "\\x1b[31mcan" in text


def test_it_loads_no_heavy_library(tmp_path: Path) -> None:
    files = [str(path) for path in sqa3d(tmp_path)]
    code = (
        "import sys\n"
        "from jobs.cli import main\n"
        f"main(['annotations', 'check', 'sqa3d', *{files}])\n"
        f"sys.exit(' '.join(sorted({HEAVY} & sys.modules.keys())) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
