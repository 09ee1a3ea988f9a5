"""`poma sweep promote`: files that run as they stand, from any trial and start."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from jobs.jobfile import load
from jobs.pretrain.check import check
from jobs.pretrain.config import PretrainJob
from jobs.pretrain.resolve import resolve
from jobs.sweep.promote import promote
from plinth.errors import CheckpointError, ConfigError, StorageError
from plinth.storage import StorageOptions
from plinth.sweep.records import Status, TrialHistory, TrialRecord, write_history
from tests.helpers.sweep_folder import JEPA, LR, asha_sweep, checkpoint, sweep, trial

OPTIONS = StorageOptions()
VALUES = {LR: 2.5e-4, JEPA: 0.5, "main.global_batch_size": 8, "model.predictor.layers": 3}


def promoted(uri: str, number: str, out: Path, with_checkpoint: bool = False, **more: str) -> PretrainJob:
    assert promote(uri, number, OPTIONS, out, with_checkpoint, **more) == 0
    return load(PretrainJob, out, [])


def test_promoted_job_has_the_trials_values(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    storage = sweep(tmp_path, 1)
    trial(storage, TrialRecord(0, VALUES, Status.stopped), [])
    out = tmp_path / "new" / "file.yaml"
    job = promoted(storage.uri, "000", out)
    assert (job.kind, job.name, job.output) == ("pretrain", "tiny-000", str(tmp_path / "runs"))
    assert job.main is not None
    assert job.warmup is not None
    assert (job.main.lr, job.main.loss.jepa, job.main.global_batch_size) == (2.5e-4, 0.5, 8)
    assert job.model.predictor.layers == 3
    assert (job.main.steps, job.warmup.steps, job.start) == (4, 4, None)
    assert "sweep:" not in out.read_text().split("kind:")[1]
    text = capsys.readouterr().out
    assert f"poma pretrain {out}" in text
    assert "main.lr = 0.00025" in text


def test_promote_takes_the_present_values(tmp_path: Path) -> None:
    storage = sweep(tmp_path, 1)
    trial(storage, TrialRecord(0, {LR: 1e-3}, Status.finished), [])
    write_history(storage.child("trials/000"), TrialHistory({LR: 3e-3}, donors=["001 at 4"]))
    job = promoted(storage.uri, "0", tmp_path / "out.yaml")
    assert job.main is not None
    assert job.main.lr == 3e-3


def test_promote_with_checkpoint_leaves_the_warmup_out(tmp_path: Path) -> None:
    storage = asha_sweep(tmp_path)
    job = promoted(storage.uri, "best", tmp_path / "out.yaml", True)
    assert (job.name, job.warmup) == ("tiny-009", None)
    assert job.start == f"{storage.uri}/trials/009/main"
    assert job.main is not None
    assert job.main.lr == pytest.approx(0.00056949, rel=1e-4)


def test_promote_starts_from_own_or_shared_warmup(tmp_path: Path) -> None:
    storage = sweep(tmp_path, 2, shares_warmup=True)
    for i in range(2):
        trial(storage, TrialRecord(i, {LR: 1e-3}, Status.running), [])
    with pytest.raises(CheckpointError, match=r"Trial 000 of .* has no committed checkpoint"):
        promoted(storage.uri, "0", tmp_path / "no.yaml", True)
    assert not (tmp_path / "no.yaml").exists()
    checkpoint(storage.child("shared"), "warmup", 4)
    checkpoint(storage.child("trials/001"), "warmup", 4)
    shared = promoted(storage.uri, "0", tmp_path / "shared.yaml", True)
    assert (shared.start, shared.warmup) == (f"{storage.uri}/shared/warmup", None)
    own = promoted(storage.uri, "1", tmp_path / "own.yaml", True)
    assert own.start == f"{storage.uri}/trials/001/warmup"


def test_promote_keeps_the_warmup_of_a_job_without_main_stage(tmp_path: Path) -> None:
    storage = asha_sweep(tmp_path, trials=1)
    content = yaml.safe_load(storage.read("sweep.yaml"))
    storage.write("sweep.yaml", yaml.safe_dump({**content, "main": None}).encode())
    trial(storage, TrialRecord(0, {"warmup.lr": 1e-3}, Status.finished), [])
    checkpoint(storage.child("trials/000"), "warmup", 4)
    for key, _ in storage.list("trials/000/main"):
        storage.delete(key)
    storage.delete("trials/000/reports.json")
    job = promoted(storage.uri, "0", tmp_path / "out.yaml", True)
    assert job.warmup is not None
    assert job.warmup.lr == 1e-3
    assert job.start == f"{storage.uri}/trials/000/warmup"


def test_promote_to_another_output(tmp_path: Path) -> None:
    storage = asha_sweep(tmp_path, trials=1)
    assert promoted(storage.uri, "0", tmp_path / "out.yaml", output="s3://bucket/runs").output == (
        "s3://bucket/runs"
    )


def test_promoted_job_passes_the_checks_of_pretrain(folder: Path) -> None:
    """All that `poma pretrain` finds out before it starts."""
    storage = sweep(folder, 1)
    trial(storage, TrialRecord(0, {LR: 2e-3, "model.predictor.layers": 2}, Status.stopped), [])
    checkpoint(storage.child("trials/000"), "warmup", 4)
    for i, with_checkpoint in enumerate((False, True)):
        job = promoted(storage.uri, "0", folder / f"{i}.yaml", with_checkpoint)
        runs = check(job, resolve(job)).stages
        assert [run.name for run in runs] == ["warmup", "main"][i:]
        assert runs[-1].optim.lr == 2e-3
        donor = runs[0].weights_from
        assert (donor and donor.uri) == (f"{storage.uri}/trials/000/warmup" if with_checkpoint else None)


def test_promote_overwrites_no_file(tmp_path: Path) -> None:
    storage = asha_sweep(tmp_path, trials=1)
    out = tmp_path / "out.yaml"
    out.write_text("mine")
    with pytest.raises(ConfigError, match="is there already"):
        promote(storage.uri, "0", OPTIONS, out, False)
    assert out.read_text() == "mine"


def test_promote_of_an_unknown_trial_lists_the_trials(tmp_path: Path) -> None:
    storage = asha_sweep(tmp_path, trials=3)
    for wrong in ("7", "seven", "-1"):
        with pytest.raises(ConfigError, match=r"There are: 000, 001, 002. The best is 00\d."):
            promote(storage.uri, wrong, OPTIONS, tmp_path / "out.yaml", False)
    empty = sweep(tmp_path / "empty", 3)
    with pytest.raises(ConfigError, match=r"has no trial best\. There are: none\."):
        promote(empty.uri, "best", OPTIONS, tmp_path / "out.yaml", False)


def test_promote_refuses_a_folder_without_a_sweep(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="is not a sweep"):
        promote(str(tmp_path), "0", OPTIONS, tmp_path / "out.yaml", False)
