"""`poma sweep` before anything starts: the trials' jobs, and what is refused in one line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.cli import main
from jobs.jobfile import load
from jobs.pretrain.config import StageConfig
from jobs.sweep import command as sweep
from jobs.sweep.config import SweepJob
from jobs.sweep.pretraining import PretrainTrials
from plinth.data.config import ReaderKind
from plinth.errors import ConfigError
from plinth.launch.config import Workers
from plinth.storage import Storage
from plinth.sweep.records import StageLength, read_sweep, write_sweep
from poma3d.stages import build_stage
from tests.helpers import tiny
from tests.helpers.tiny_jobs import pretrain_job, write

SPACE: dict[str, Any] = {"main.lr": {"log_uniform": [1e-4, 1e-2]}, "main.loss.jepa": {"choice": [0.0, 1.0]}}


def sweep_file(folder: Path, space: dict[str, Any] = SPACE, **changes: Any) -> str:
    job = pretrain_job(folder, kind="sweep", name="s", output=str(folder / "sweeps"))
    for stage in (job["warmup"], job["main"]):
        stage["data"].pop("reader")
    job["fit"] = {"workers": 2, "cpus_per_worker": 0.5}
    settings = {"space": space, "metric": "scene_text", "trials": 4}
    for key, value in changes.items():
        place, _, name = key.rpartition("__")
        (job[place] if place else settings)[name] = value
    job["sweep"] = settings
    return write(folder / "sweep.yaml", job)


def loaded(path: str) -> tuple[SweepJob, PretrainTrials]:
    job = load(SweepJob, Path(path), [])
    storage = sweep.sweep_storage(job)
    job = PretrainTrials(job, storage).pinned(resumes=False)
    trials = sweep.prepare(job, storage)
    assert isinstance(trials, PretrainTrials)
    return job, trials


def test_trial_job_has_its_values_length_and_shared_warmup(folder: Path) -> None:
    job, trials = loaded(sweep_file(folder, length=0.5))
    assert trials.shares_warmup
    of_trial = trials.job_of("003", {"main.lr": 5e-4, "main.loss.jepa": 1.0})
    assert of_trial.main is not None
    assert (of_trial.main.lr, of_trial.main.loss.jepa) == (5e-4, 1.0)
    assert of_trial.warmup is None
    assert of_trial.start == str(folder / "sweeps/s/shared/warmup")
    assert (of_trial.output, of_trial.name) == (str(folder / "sweeps/s/trials"), "003")
    assert of_trial.main.steps == 2  # half of four
    assert of_trial.main.data.reader is ReaderKind.threads
    assert of_trial.fit.workers == Workers(1, 1)
    shared = sweep.pretrain_shared(job, trials.storage)
    assert shared.main is None
    assert shared.fit.workers == Workers(2, 2)


def test_warmup_is_not_shared_when_it_varies(folder: Path) -> None:
    _, trials = loaded(sweep_file(folder, {"optim.weight_decay": {"choice": [0.0, 0.1]}}))
    assert not trials.shares_warmup
    of_trial = trials.job_of("000", {"optim.weight_decay": 0.1})
    assert of_trial.warmup is not None
    assert of_trial.optim.weight_decay == 0.1
    assert trials.lengths({}) == {"warmup": StageLength(4, 16, 2), "main": StageLength(4, 16, 2)}


def test_trials_with_other_batch_sizes_train_on_the_same_number_of_samples(folder: Path) -> None:
    in_samples = {"steps": None, "samples": 16, "warmup_steps": None, "warmup_samples": 4}
    path = sweep_file(
        folder, {"main.global_batch_size": {"grid": [2, 4]}}, searcher="grid",
        **{f"main__{key}": value for key, value in in_samples.items()},
    )  # fmt: skip
    _, trials = loaded(path)
    sizes = [2, 4]
    assert [trials.lengths({"main.global_batch_size": s})["main"].samples for s in sizes] == [16, 16]
    jobs = [trials.job_of("000", {"main.global_batch_size": s}) for s in sizes]
    assert [job.main.global_batch_size for job in jobs if job.main] == sizes


@pytest.mark.parametrize("last", ["warmup", "main"])
@pytest.mark.parametrize("weights", [{"jepa": 1.0}, {"jepa": 0.0, "dense": 0.5}], ids=["jepa", "dense"])
def test_metrics_are_those_that_the_last_stage_gives(last: str, weights: dict[str, float]) -> None:
    """What the names stand for: the terms of the real stage, with the same weights."""
    job = SweepJob(name="s", output="x", warmup=StageConfig())
    stage_config = job.warmup
    if last == "main":
        job.main = stage_config = StageConfig()
    assert stage_config is not None
    stage_config.loss = replace(stage_config.loss, **weights)
    shape = tiny.shape()
    stage = build_stage(last, tiny.model_config("full"), stage_config.loss, shape, tiny.tower(), 0)
    encoded = stage(stage.fake_batch(2))
    terms = {*encoded.sums, *stage.contrast(encoded.features).terms}
    assert PretrainTrials(job, Storage.from_uri(job.output)).metrics() == terms | {"loss", "grad_norm"}


def test_missing_held_out_data_set_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = sweep_file(folder, metric="R@1-5", mode="max")
    assert main(["sweep", path, f"evaluation.data={folder}/nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("space", "changes", "said"),
    [
        ({"main.lrr": {"choice": [1, 2]}}, {}, "unknown key main.lrr. Did you mean main.lr?"),
        ({"main.global_batch_size": {"choice": [4, "many"]}}, {}, "main.global_batch_size"),
        ({"main.lr": {"choice": [1e-3, -1.0]}}, {}, "cannot run: optim.lr is -1.0, expected above 0"),
        ({"main.lr": {"choice": [1e-3]}}, {}, "sweep.space has one point. Use `poma pretrain`"),
        ({"fit.workers.max": {"choice": [1, 2]}}, {}, "sweep.space.fit.workers.max: where, on what"),
        ({"main.global_batch_size": {"choice": [2, 4]}}, {}, "Give main.samples (or epochs)"),
        (SPACE, {"metric": "loss"}, "sweep.metric loss is not comparable between trials: main.loss.jepa"),
        (SPACE, {"metric": "scene_texts"}, "Did you mean scene_text?"),
        (SPACE, {"scheduler": {"kind": "ash"}}, "sweep.scheduler.kind"),
    ],
)
def test_sweep_mistakes_are_one_line(
    folder: Path,
    space: dict[str, Any],
    changes: dict[str, Any],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["sweep", sweep_file(folder, space, **changes)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert not (folder / "sweeps/s/sweep.json").exists()


def test_sweep_refuses_reader_ray(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = sweep_file(folder)
    assert main(["sweep", path, "main.data.reader=ray"]) == 2
    assert "main.data.reader is ray" in capsys.readouterr().err


def test_sweep_of_the_same_name_with_other_settings_is_refused(folder: Path) -> None:
    job, trials = loaded(sweep_file(folder))
    write_sweep(trials.storage, sweep.start_record(job, trials, None, trials.storage))
    before = read_sweep(trials.storage)
    job.sweep.trials = 8  # more are welcome
    assert sweep.start_record(job, trials, before, trials.storage).trials == 8
    job.sweep.space["main.lr"].log_uniform = [1e-5, 1e-2]
    with pytest.raises(ConfigError, match=r"is another sweep: sweep.space.main.lr.log_uniform was"):
        sweep.start_record(job, trials, before, trials.storage)


def test_shipped_sweep_config_is_valid() -> None:
    job = load(SweepJob, Path("jobs/configs/sweep.yaml"), [])
    job.sweep.validate(PretrainTrials(job, Storage.from_uri(job.output)).metrics())
    assert isinstance(Storage.from_uri(job.output), Storage)
