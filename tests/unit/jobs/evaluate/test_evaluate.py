"""`poma evaluate` on tiny data: which classes the probe asks for, and its sentence where there are none."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.cli import main
from jobs.common.datasets import open_dataset
from jobs.evaluate import command, encoders
from jobs.evaluate.config import EvaluateJob
from jobs.evaluate.measure import MODEL, NO_PROBE, PROBE, short_scenes
from jobs.pretrain.config import PretrainJob
from plinth.data import manifest as manifests
from plinth.data.manifest import Manifest
from plinth.storage import Storage, StorageOptions
from poma3d import export
from poma3d.evaluate.config import BootstrapConfig, ProbeConfig, RetrievalConfig
from poma3d.pretrained.config import TeacherConfig
from tests.helpers.tiny_jobs import embed_file, ingest_job, write


@pytest.fixture
def job(folder: Path) -> EvaluateJob:
    """An untrained encoder on the rooms."""
    teacher = TeacherConfig(source=str(folder / "teacher"))
    shape = open_dataset(str(folder / "rooms"), StorageOptions()).shape
    export.save(encoders.untrained(PretrainJob(teacher=teacher), shape), folder / "encoder")
    draws = BootstrapConfig(draws=20)
    return EvaluateJob(
        run=str(folder / "encoder"),
        data=str(folder / "rooms"),
        teacher=teacher,
        retrieval=RetrievalConfig(utterances=[1], best=[1], bootstrap=draws),
        probe=ProbeConfig(bootstrap=draws),
        output=str(folder / "out"),
    )


def with_attributes(data: str, **changes: Any) -> None:
    """The data set with other attributes in its manifest; None drops one."""
    storage = Storage.from_uri(data)
    manifest = manifests.load(storage)
    attributes = {k: v for k, v in (manifest.attributes | changes).items() if v is not None}
    manifests.commit(storage, Manifest(manifest.shards, attributes))


def test_embedded_rooms_still_name_their_classes(folder: Path) -> None:
    dataset = open_dataset(str(folder / "rooms"), StorageOptions())
    assert dataset.teacher is not None
    assert dataset.manifest.attributes["classes"]["shelf"] == ["shelf", "shelves"]


def test_probe_of_rooms_ingested_before_manifests_named_classes(job: EvaluateJob) -> None:
    now = command.evaluate(job).results
    with_attributes(job.data, classes=None)
    before = command.evaluate(job).results
    assert PROBE in now.numbers[MODEL]
    assert before.to_dict() == now.to_dict()


def test_probe_asks_for_the_classes_of_the_manifest(job: EvaluateJob) -> None:
    everything = command.evaluate(job).results
    with_attributes(job.data, classes={"seat": ["chair", "chairs", "stool", "stools", "sofa", "sofas"]})
    seats = command.evaluate(job).results
    assert seats.chance[PROBE] != everything.chance[PROBE], "other classes, other shares of positives"


def test_no_probe_without_classes_and_a_sentence_that_says_so(
    job: EvaluateJob, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_attributes(job.data, classes=None, source="scannet")
    content = {
        "kind": "evaluate", "run": job.run, "data": job.data, "teacher": {"source": job.teacher.source},
        "retrieval": {"utterances": [1], "best": [1], "bootstrap": {"draws": 20}}, "output": job.output,
    }  # fmt: skip
    assert main(["evaluate", write(folder / "evaluate.yaml", content)]) == 0
    assert NO_PROBE in capsys.readouterr().out
    written = json.loads((folder / "out" / "evaluation.json").read_text())
    assert written["probe"] == NO_PROBE
    assert PROBE not in written[MODEL]
    assert PROBE not in written["chance"]


def test_evaluation_json_says_nothing_of_a_probe_that_was_made(job: EvaluateJob) -> None:
    results = command.evaluate(job).results
    assert "probe" not in results.to_dict()
    assert replace(results, probe_scenes=None).to_dict()["probe"] == NO_PROBE


def test_queries_of_more_captions_than_a_scene_has_are_said(job: EvaluateJob) -> None:
    samples = open_dataset(job.data, StorageOptions()).samples()
    views = max(len(sample.view_captions) for sample in samples)
    asking = [replace(job.retrieval, utterances=[m]) for m in (1, views + 1)]
    said = [list(short_scenes(replace(job, retrieval=one), samples)) for one in asking]
    assert said[0] == []
    assert said[1][0].startswith(f"{len(samples)} of {len(samples)} scenes have fewer than {views + 1}")


def test_views_of_another_size_are_refused_in_a_line(
    job: EvaluateJob, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = ingest_job(folder / "large", rooms=4, shape={"views": 2, "height": 48, "width": 48})
    assert main(["ingest", write(folder / "large.yaml", other)]) == 0
    assert main(["embed", embed_file(folder, "large")]) == 0
    asked = {"kind": "evaluate", "run": job.run, "data": str(folder / "large"), "output": str(folder / "out"),
             "teacher": {"source": job.teacher.source}}  # fmt: skip
    capsys.readouterr()
    assert main(["evaluate", write(folder / "evaluate.yaml", asked)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "takes views of 32 x 32 pixels, the data has views of 48 x 48" in line


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("retrieval.utterances=[0]", "retrieval.utterances is [0]; name numbers of 1 or more"),
        ("retrieval.utterances=[]", "retrieval.utterances is []"),
        ("retrieval.best=[-1]", "retrieval.best is [-1]"),
        ("retrieval.bootstrap.confidence=1.0", "retrieval.bootstrap.confidence is 1.0"),
        ("probe.held_out=1.5", "probe.held_out is 1.5; give a share above 0 and below 1"),
        ("probe.bootstrap.confidence=0", "probe.bootstrap.confidence is 0.0"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], override: str, words: str
) -> None:
    asked = {"kind": "evaluate", "run": str(tmp_path / "run"), "data": str(tmp_path / "data")}
    assert main(["evaluate", write(tmp_path / "evaluate.yaml", asked), override]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert words in line
