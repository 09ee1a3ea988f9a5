"""`evaluate_beside`: what is refused before anything starts, and what a checkpoint is measured by."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.cli import main
from jobs.evaluate.measure import MODEL
from jobs.evaluate.record import NEWEST
from jobs.jobfile import load
from jobs.pretrain.beside import beside, evaluate_checkpoint
from jobs.pretrain.config import PretrainJob
from jobs.pretrain.resolve import resolve
from plinth.errors import DataError
from tests.helpers.tiny_jobs import ingest_job, pretrain_job, write

RETRIEVAL = {"best": [1, 2], "bootstrap": {"draws": 20}}


def job_file(folder: Path, workers: int = 1, **changes: Any) -> str:
    asked = {"data": str(folder / "rooms"), "retrieval": RETRIEVAL, **changes}
    return write(
        folder / "job.yaml",
        pretrain_job(folder, fit={"workers": workers}, evaluate_beside=asked, warmup=None),
    )


@pytest.mark.parametrize(
    ("workers", "changes", "words"),
    [
        (0, {}, "evaluate_beside needs Ray, and fit.workers is 0"),
        (1, {"kinds": []}, "evaluate_beside.kinds is empty"),
        (1, {"num_cpus": 0}, "evaluate_beside.num_cpus is 0"),
        (1, {"every": 0}, "evaluate_beside.every is 0"),
        (1, {"retrieval": {"best": [0]}}, "evaluate_beside.retrieval.best is [0]"),
        (1, {"probe": {"held_out": 1.5}}, "evaluate_beside.probe.held_out is 1.5"),
        (1, {"data": "/nowhere"}, "/nowhere"),
        (1, {"kind": ["probe"]}, "kinds"),
    ],
)
def test_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], workers: int, changes: dict[str, Any], words: str
) -> None:
    assert main(["pretrain", job_file(folder, workers, **changes)]) == 2
    assert words in capsys.readouterr().err
    assert not (folder / "runs").exists()


def test_held_out_views_of_another_size_are_refused_before_anything_starts(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ingest_job(folder / "small", rooms=2)
    small["shape"].update(height=16, width=16)
    assert main(["ingest", write(folder / "small.yaml", small)]) == 0
    embed = {"kind": "embed", "data": str(folder / "small"), "teacher": {"source": str(folder / "teacher")}}
    assert main(["embed", write(folder / "embed.yaml", {**embed, "workers": 0})]) == 0
    job = load(PretrainJob, Path(job_file(folder, data=str(folder / "small"))))
    with pytest.raises(DataError, match=r"main trains on views of 32 x 32 pixels, .* has views of 16 x 16"):
        resolve(job)


def test_a_checkpoint_has_the_numbers_of_poma_evaluate(folder: Path) -> None:
    job = load(PretrainJob, Path(job_file(folder)))
    (stage,) = resolve(job)
    assert stage.evaluated is not None
    assert (stage.evaluated.every_steps, stage.evaluated.last_step) == (2, 4)
    assert beside(job) is not None
    assert main(["pretrain", folder_job(folder)]) == 0
    found = evaluate_checkpoint(job, "main", 4)
    evaluate = {
        "kind": "evaluate", "run": str(folder / "runs/run"), "data": str(folder / "rooms"),
        "teacher": {"source": str(folder / "teacher")}, "retrieval": RETRIEVAL,
    }  # fmt: skip
    assert main(["evaluate", write(folder / "evaluate.yaml", evaluate)]) == 0
    expected = json.loads((folder / "runs/run" / NEWEST).read_text())[MODEL]
    assert found == {name: one["value"] for name, one in expected.items()}
    assert {"R@1-1", "scene R@1-2", "probe AP"} <= found.keys()
    only = load(PretrainJob, Path(job_file(folder, kinds=["probe"], max_samples=4)))
    assert list(evaluate_checkpoint(only, "main", 4)) == ["probe AP"]


def folder_job(folder: Path) -> str:
    """The same training in this process, which evaluates nothing."""
    return write(folder / "plain.yaml", pretrain_job(folder, warmup=None))


def test_a_job_without_the_section_evaluates_nothing(folder: Path) -> None:
    job = load(PretrainJob, Path(folder_job(folder)))
    assert beside(job) is None
    assert [stage.evaluated for stage in resolve(job)] == [None]
