"""`poma sweep` on a job of `poma finetune`, without Ray: the trials' jobs, their measure, what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.cli import main
from jobs.common.run_layout import run_storage
from jobs.finetune import command as finetune
from jobs.finetune.config import EncoderConfig, FinetuneJob
from jobs.jobfile import load
from jobs.sweep import command as sweep
from jobs.sweep.config import HeadSweepJob
from jobs.sweep.heads import HeadTrials
from plinth import config
from plinth.data import manifest as manifests
from plinth.data.config import ReaderKind
from plinth.data.manifest import Manifest
from plinth.launch.config import Workers
from plinth.storage import Storage, StorageOptions
from plinth.sweep.records import JOB_KEY, StageLength, Status, TrialRecord
from plinth.sweep.samplers import make_sampler
from poma3d.heads.config import HeadSceneConfig
from tests.helpers.downstream import heads
from tests.helpers.sweep_folder import sweep_record, trial
from tests.helpers.tiny_jobs import write

SPACE: dict[str, Any] = {"heads.lr": {"choice": [1e-3, 1e-2]}, "head.dropout": {"choice": [0.0, 0.3]}}


def sweep_file(home: Path, **settings: Any) -> str:
    job = heads.finetune_job(home, kind="sweep_finetune", name="s", output=str(home / "sweeps"))
    job["heads"]["data"].pop("reader")
    job["fit"] = {"workers": 2, "cpus_per_worker": 0.5}
    job["sweep"] = {"space": SPACE, "metric": "EM@1", "mode": "max", "trials": 3, **settings}
    return write(home / "sweep.yaml", job)


def trials_of(home: Path, **settings: Any) -> HeadTrials:
    job = load(HeadSweepJob, Path(sweep_file(home, **settings)))
    storage = sweep.sweep_storage(job)
    trials = sweep.prepare(HeadTrials(job, storage).pinned(resumes=False), storage)
    assert isinstance(trials, HeadTrials)
    return trials


def test_trials_have_their_values_and_share_their_questions(home: Path) -> None:
    trials = trials_of(home, length=0.5)
    job = trials.job_of("001", {"heads.lr": 1e-3, "head.dropout": 0.0})
    assert (job.kind, job.name, job.heads.lr, job.head.dropout) == ("finetune", "001", 1e-3, 0.0)
    assert (job.heads.steps, job.fit.workers) == (2, Workers(1, 1))
    assert job.heads.data.reader is ReaderKind.threads
    assert trials.lengths({}) == {"heads": StageLength(2, 16, 2)}
    joined = sorted(path.name.partition("-")[0] for path in (home / "sweeps/s/questions").iterdir())
    assert joined == ["train", "val"]  # one of each, whatever was looked at


def test_a_checkpoint_is_worth_what_finetune_says_of_it(home: Path) -> None:
    trials = trials_of(home)
    job = trials.job_of("000", {"heads.lr": 1e-2})
    job.fit.workers = Workers(0, 0)
    assert finetune.run_job(job) == 0
    run = run_storage(job)
    results = json.loads(run.read("results.json"))
    measured = {step: trials.measure(run, "heads", int(step)) for step in results["selection"]}
    assert {step: found["EM@1"].value for step, found in measured.items()} == results["selection"]
    last = results["splits"]["val"]["last"]
    figures = {name: found["value"] for name, found in last["figures"].items()}
    values = {name: found.value for name, found in measured[str(last["step"])].items()}
    assert values == pytest.approx(figures)


def test_features_stay_at_the_version_of_the_first_start(home: Path) -> None:
    features = Storage.from_uri(home / "features")
    built = manifests.load(features)
    first = Manifest(built.shards, built.attributes | {"version": 1})
    for folder in (features.child(manifests.version_folder(1)), features):
        manifests.commit(folder, first)
    job = load(HeadSweepJob, Path(sweep_file(home)))
    assert job.val is not None
    job.val = replace(job.val, features=[f"{features.uri}#1"])
    storage = sweep.sweep_storage(job)
    pinned = HeadTrials(job, storage).pinned(resumes=False)
    storage.write(JOB_KEY, config.to_yaml(pinned).encode())
    second = Manifest(built.shards, built.attributes | {"version": 2})
    for folder in (features.child(manifests.version_folder(2)), features):
        manifests.commit(folder, second)
    again = HeadTrials(job, storage).pinned(resumes=True)
    assert again.train.features == pinned.train.features == [f"{features.uri}#1"]
    job.val = replace(job.val, features=[f"{features.uri}#2"])
    storage.write(JOB_KEY, config.to_yaml(HeadTrials(job, storage).pinned(resumes=True)).encode())
    again = HeadTrials(job, storage).pinned(resumes=True)
    assert again.val is not None
    assert (again.train.features, again.val.features) == ([f"{features.uri}#1"], [f"{features.uri}#2"])


def test_what_decides_nothing_may_change_between_starts(home: Path) -> None:
    def judged(encoder: dict[str, Any], cell_m: float = 0.2, **changes: Any) -> dict[str, Any]:
        job = load(HeadSweepJob, Path(sweep_file(home)))
        job.scene = HeadSceneConfig(cell_m=cell_m)
        job.encoder = EncoderConfig(source=str(home / "encoder"), **encoder)
        job.text = replace(job.text, **changes)
        return HeadTrials(job, sweep.sweep_storage(job)).decisive()

    before = judged({})
    assert judged({"cached_scenes": 8, "gradient_checkpointing": True}, allow_tensors=["*.bias"]) == before
    assert judged({"lr": 1e-4}) != before
    assert judged({}, max_tokens=8) != before
    assert judged({}, cell_m=0.4) != before


def test_a_sweep_from_before_a_key_was_there_may_go_on(home: Path) -> None:
    """At its default a key that older jobs lack is not part of what a sweep is compared by."""
    job = load(HeadSweepJob, Path(sweep_file(home)))
    judged = HeadTrials(job, sweep.sweep_storage(job)).decisive()
    assert "scene" not in judged
    assert "attention" not in judged["head"]
    job.head = replace(job.head, attention="guided")
    assert HeadTrials(job, sweep.sweep_storage(job)).decisive()["head"]["attention"] == "guided"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"space": {"heads.lrr": {"choice": [1, 2]}}}, "unknown key heads.lrr. Did you mean heads.lr?"),
        ({"space": {"head.dropout": {"choice": [0.1, 1.0]}}}, "cannot run: head.dropout is 1.0"),
        ({"space": {"qa.unknown_answers": {"choice": ["wrong", "impossible"]}}}, "by what a trial is judged"),
        ({"space": {"val.features": {"choice": ["a", "b"]}}}, "by what a trial is judged"),
        ({"space": {"heads.global_batch_size": {"choice": [4, 8]}}}, "Give heads.samples (or epochs)"),
        ({"metric": "EM@2"}, "no trial of this job reports it"),
    ],
)
def test_mistakes_in_a_sweep_of_heads_are_one_line(
    home: Path, settings: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep", sweep_file(home, **settings)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1
    assert not (home / "sweeps/s/sweep.json").exists()


def test_a_job_without_sweep_is_told_its_command(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = write(home / "qa.yaml", heads.finetune_job(home))
    assert main(["sweep", job]) == 2
    assert f"Run `poma finetune {job}`" in capsys.readouterr().err
    assert main(["finetune", sweep_file(home)]) == 2
    assert "Run `poma sweep " in capsys.readouterr().err


def test_a_promoted_trial_is_a_job_of_finetune(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = load(HeadSweepJob, Path(sweep_file(home)))
    storage = sweep.sweep_storage(job)
    sweep_record(storage, config.to_yaml(job), 1)
    trial(storage, TrialRecord(0, {"heads.lr": 1e-3, "head.dropout": 0.0}, Status.finished), [])
    out = home / "promoted.yaml"
    assert main(["sweep", "promote", storage.uri, "0", "--out", str(out)]) == 0
    assert f"poma finetune {out}" in capsys.readouterr().out
    promoted = load(FinetuneJob, out)
    assert (promoted.name, promoted.heads.lr, promoted.heads.steps) == ("tiny-000", 1e-3, 4)
    assert "sweep" not in yaml.safe_load(out.read_text())
    more = ["--out", str(home / "other.yaml"), "--with-checkpoint"]
    assert main(["sweep", "promote", storage.uri, "0", *more]) == 2
    assert "start from new weights" in capsys.readouterr().err


def test_shipped_sweep_of_heads_is_valid() -> None:
    job = load(HeadSweepJob, Path("jobs/configs/sweep_qa.yaml"))
    trials = HeadTrials(job, Storage.from_uri(job.output, StorageOptions()))
    job.sweep.validate(trials.metrics())
    job.validate()
    assert job.sweep.metric in trials.measured()
    values = make_sampler(job.sweep, []).sample(1)
    assert values is not None
    assert values.keys() == job.sweep.space.keys()
    found = trials.full_job(values)  # refuses keys that a job does not have
    assert (found.heads.lr, found.head.dropout) == (values["heads.lr"], values["head.dropout"])
