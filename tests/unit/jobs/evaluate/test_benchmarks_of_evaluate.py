"""`poma evaluate` with benchmark sections, on tiny data: what is printed, kept and refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from jobs.cli import main
from jobs.common.datasets import open_dataset
from jobs.evaluate import encoders, record
from jobs.pretrain.config import PretrainJob
from jobs.runs.evaluations import read_evaluations
from plinth.storage import Storage, StorageOptions
from poma3d import export
from poma3d.pretrained.config import TeacherConfig
from tests.helpers.tiny_jobs import write
from tests.helpers.view.benchmarks import json_lines

FIRST, SECOND = "room-0-0000000", "room-0-0000001"
DRAWS = {"bootstrap": {"draws": 20}}


@pytest.fixture
def content(folder: Path) -> dict[str, Any]:
    """A job with retrieval in both protocols, grounding and room types, for an untrained encoder."""
    teacher = TeacherConfig(source=str(folder / "teacher"))
    shape = open_dataset(str(folder / "rooms"), StorageOptions()).shape
    export.save(encoders.untrained(PretrainJob(teacher=teacher), shape), folder / "encoder")
    rows = [
        {"scan_id": FIRST, "utterance": "a chair", "view_ground_truth": [0]},
        {"scan_id": SECOND, "utterance": "a bed " * 40, "view_ground_truth": [1, 0]},
        {"scan_id": "missing", "utterance": "a lamp"},
    ]
    said = json_lines(folder / "said.jsonl", rows)
    (folder / "types.json").write_text(json.dumps({FIRST: "kitchen", SECOND: "bedroom"}))
    retrieval = {"files": [said], "utterances": [1], **DRAWS}
    return {
        "kind": "evaluate", "run": str(folder / "encoder"), "data": str(folder / "rooms"),
        "teacher": {"source": str(folder / "teacher")}, "output": str(folder / "out"),
        "retrieval": {"utterances": [1], "best": [1], **DRAWS}, "probe": DRAWS,
        "benchmark": {
            "retrieval": [retrieval, {**retrieval, "protocol": "ours"}],
            "grounding": [{"files": [said], **DRAWS}],
            "room_type": {"labels": str(folder / "types.json"), "shots": [1], **DRAWS},
        },
    }  # fmt: skip


def evaluate(folder: Path, content: dict[str, Any]) -> int:
    return main(["evaluate", write(folder / "evaluate.yaml", content)])


def test_tables_and_results(
    folder: Path, content: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(folder, content) == 0
    said = capsys.readouterr()
    for word in (
        "uniscene3d",
        "draws of each scan",
        "View grounding, any visible view",
        "Room type, accuracy",
    ):
        assert word in said.out
    assert "1 of 2 texts are longer" in said.err, "cut texts are counted"
    newest = json.loads((folder / "out" / "evaluation.json").read_text())
    names = [each["benchmark"] for each in newest["benchmarks"]]
    assert len(names) == 6
    assert newest["benchmarks"][0]["counts"]["queries of scans that the data set lacks"] == 1
    assert newest["about"]["data"]["uri"] == content["data"]
    [shown] = read_evaluations(Storage.from_uri(str(folder / "out")))
    assert shown.command == newest["about"]["command"]
    assert [one.title.split(": ")[0] for one in shown.benchmarks] == names
    assert all(row[1] for one in shown.benchmarks for row in one.rows), "a figure for every encoder"
    kept = list((folder / "out" / "evaluations").iterdir())
    assert [json.loads(path.read_text()) for path in kept] == [newest]
    assert said.out.rstrip().endswith(kept[0].name), "says where the results are"


def test_a_second_data_set_leaves_the_first_ones_results(folder: Path, content: dict[str, Any]) -> None:
    del content["benchmark"]
    assert evaluate(folder, content) == 0
    first = {path.name: path.read_bytes() for path in (folder / "out" / "evaluations").iterdir()}
    assert evaluate(folder, {**content, "data": str(folder / "images")}) == 0
    both = {path.name: path.read_bytes() for path in (folder / "out" / "evaluations").iterdir()}
    assert len(both) == 2
    assert first.items() <= both.items()
    assert sorted(name.split("-")[0] for name in both) == ["images", "rooms"]


def test_names_say_data_encoder_and_date_and_are_never_used_twice(
    folder: Path, content: dict[str, Any]
) -> None:
    encoder = export.load(folder / "encoder")
    encoder.provenance = export.Provenance("t", "r", 0.0, "s3://bucket/runs/base/main step 300")
    dataset = open_dataset(content["data"], StorageOptions())
    output = Storage.from_uri(str(folder / "kept"))
    now = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)
    keys = [record.keep(output, "s3://b/scans#3", dataset, encoder, {"x": 1}, now) for _ in range(2)]
    hashed = dataset.manifest.hash[:8]
    assert keys == [
        f"evaluations/scans-3-{hashed}-main-step-300-20260203T040506Z.json",
        f"evaluations/scans-3-{hashed}-main-step-300-20260203T040506Z-2.json",
    ]
    assert json.loads(output.read(keys[0]))["about"]["encoder"] == encoder.provenance.run


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"retrieval": [{"files": []}]}, "benchmark.retrieval[0].files"),
        ({"retrieval": [{"files": ["x.jsonl"], "kind": "scanqa"}]}, "benchmark.retrieval[0].kind"),
        ({"retrieval": [{"files": ["x.jsonl"], "utterances": [0]}]}, "benchmark.retrieval[0].utterances"),
        ({"grounding": [{"files": ["x.jsonl"], "best": []}]}, "benchmark.grounding[0].best"),
        ({"grounding": [{"files": ["x.jsonl"]}]}, "there is no x.jsonl"),
        ({"localisation": [{"files": ["x"], "degrees_per_metre": 0}]}, "degrees_per_metre"),
        ({"room_type": {"labels": "x", "templates": ["a room"]}}, "benchmark.room_type.templates"),
        ({"retrieval": [{"files": ["x"], "protocoll": "ours"}]}, "protocoll"),
        ({"retrieval": [{"files": ["x"], "protocol": "theirs"}]}, "protocol"),
    ],
)
def test_mistakes_are_one_line_before_anything_is_read(
    folder: Path,
    content: dict[str, Any],
    changes: dict[str, Any],
    word: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert evaluate(folder, {**content, "benchmark": changes, "data": str(folder / "nowhere")}) == 2
    said = capsys.readouterr().err
    assert word in said
    assert len(said.splitlines()) == 1
