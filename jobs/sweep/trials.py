"""A trial of a sweep as a pretraining job: its values in place, its length, its start, its measures."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from jobs.common import models
from jobs.common.devices import own_device
from jobs.common.run_layout import STAGES
from jobs.evaluate import command as evaluate
from jobs.evaluate import encoders
from jobs.evaluate import measure as evaluation
from jobs.evaluate.config import EvaluateJob
from jobs.pretrain.check import check
from jobs.pretrain.config import PretrainJob, StageConfig
from jobs.pretrain.launch import launch
from jobs.pretrain.resolve import resolve
from jobs.sweep.config import SweepJob
from plinth import config
from plinth.data.config import ReaderKind
from plinth.errors import ConfigError
from plinth.launch.config import Workers
from plinth.launch.placement import TrialPlacement
from plinth.storage import Storage
from plinth.sweep.records import SHARED, TRIALS, Measured, StageLength, Values
from poma3d import stages

OWN_KEYS = ("kind", "evaluation", "sweep")
"""Keys of a sweep's job file beside those of a pretraining job."""
FIXED_KEYS = ("kind", "name", "output", "start", "fit", "ray", "storage", "lock", "ledger", "sweep")
"""What no trial may vary: it says where and on what it runs."""
PROBE = "probe"
"""Name of a trial that is only looked at."""


@dataclass(frozen=True)
class Trials:
    """All trials of a sweep; picklable.

    Args:
        job: with absolute folders and pinned data sets: trials run in other folders and at other times.
        storage: the sweep's folder.
        shares_warmup: all start from the one in `SHARED`.
    """

    job: SweepJob
    storage: Storage
    shares_warmup: bool

    def job_of(self, name: str, values: Values) -> PretrainJob:
        """The pretraining job of a trial.

        Raises:
            ConfigError: naming the key that the job does not have, or whose type refuses the value.
        """
        job = with_values(pretrain_job(self.job), values)
        job.name, job.output = name, self.storage.child(TRIALS).uri
        size = self.job.sweep.workers
        job.fit.workers = Workers(size, size)
        for stage in (job.warmup, job.main):
            if stage is not None:
                _shorten(stage, self.job.sweep.length)
                # No reading tasks: they would ask for CPUs beside those that the trial has reserved.
                stage.data = replace(stage.data, reader=ReaderKind.threads)
        if self.shares_warmup:
            job.warmup, job.start = None, self.storage.child(SHARED).child(STAGES[0]).uri
        return job

    def admit(self, values: Values) -> None:
        """Find every mistake in a trial that can be found before it starts.

        Raises:
            PlinthError: the first one.
        """
        job = self._probe(values)
        check(job, resolve(job))

    def train(self, name: str, values: Values, placement: TrialPlacement, has_changed: bool) -> None:
        """Train a trial to its end in its reserved resources; resumes it."""
        job = self.job_of(name, values)
        launch(job, check(job, resolve(job, accept_changes=has_changed)), placement)

    def lengths(self, values: Values) -> dict[str, StageLength]:
        """Lengths of the stages, in order."""
        return {
            stage.name: StageLength(
                stage.total_steps, stage.total_steps * stage.global_batch_size, stage.checkpoint.every_steps
            )
            for stage in resolve(self._probe(values))
        }

    def _probe(self, values: Values) -> PretrainJob:
        job = self.job_of(PROBE, values)
        if self.shares_warmup:
            job.start = None  # it may not be there yet
        return job

    def measure(self, run: Storage, stage: str, step: int) -> dict[str, Measured]:
        """Retrieval and probe of a checkpoint on the held-out scenes: "R@1-5", "probe AP"."""
        job = evaluate_job(self.job, run)
        dataset, samples = evaluate.held_out(job)
        encoder = encoders.load(job.run, job.storage, job.teacher, stage, step)
        device = own_device()
        known = {evaluation.MODEL: encoder.to(device)}
        features = evaluation.gather_features(known, samples, job.batch_size)
        teacher = models.open_teacher(job.teacher, job.storage, device)
        found = evaluation.measure(job, samples, dataset.classes, features, teacher)
        numbers = found.numbers[evaluation.MODEL]
        return {name: Measured(each.value, each.low, each.high) for name, each in numbers.items()}


def evaluate_job(job: SweepJob, run: Storage) -> EvaluateJob:
    """The evaluation of a trial."""
    wanted = job.evaluation
    assert wanted is not None
    return EvaluateJob(
        run=run.uri, data=wanted.data, teacher=job.teacher, retrieval=wanted.retrieval, probe=wanted.probe,
        batch_size=wanted.batch_size, storage=job.storage,
    )  # fmt: skip


def pretrain_job(job: SweepJob) -> PretrainJob:
    """The job without what makes it a sweep."""
    plain = {key: value for key, value in config.to_dict(job).items() if key not in OWN_KEYS}
    return config.build(PretrainJob, [("the sweep's job", plain)])


def with_values(job: PretrainJob, values: Values) -> PretrainJob:
    """The job with dotted keys set.

    Raises:
        ConfigError: an unknown key, or a value that its type refuses.
    """
    layers: list[tuple[str, Any]] = [("the sweep's job", config.to_dict(job))]
    for key, value in values.items():
        layer = OmegaConf.create({})
        try:
            OmegaConf.update(layer, key, value)
        except OmegaConfBaseException as error:
            raise ConfigError(f"sweep.space.{key}: no key of a job ({error}).") from None
        layers.append((f"sweep.space.{key}", layer))
    return config.build(PretrainJob, layers)


def metrics_of(job: SweepJob) -> set[str]:
    """What a trial reports: losses of the last stage, and the measures that the job asks for."""
    name, last = ("main", job.main) if job.main is not None else ("warmup", job.warmup)
    if last is None:
        raise ConfigError("The job has neither a warmup nor a main section.", "Give at least one.")
    return {"loss", "grad_norm"} | stages.STAGES[name].reported(last.loss) | evaluation_metrics(job)


def evaluation_metrics(job: SweepJob) -> set[str]:
    """Those of the held-out scenes."""
    if job.evaluation is None:
        return set()
    asked = job.evaluation.retrieval
    labels = [*(f"R@{m}" for m in asked.utterances), evaluation.SCENE_QUERY]
    return {evaluation.PROBE, *(f"{label}-{best}" for label in labels for best in asked.best)}


def can_share_warmup(job: SweepJob) -> bool:
    """Whether all trials would have the same warm-up: only keys of the main stage vary."""
    is_main = all(key.startswith(f"{STAGES[1]}.") for key in job.sweep.space)
    return job.sweep.share_warmup and is_main and job.warmup is not None and job.main is not None


def _shorten(stage: StageConfig, part: float) -> None:
    if stage.steps is not None:
        stage.steps = math.ceil(stage.steps * part)
    if stage.samples is not None:
        stage.samples = math.ceil(stage.samples * part)
    if stage.epochs is not None:
        stage.epochs *= part
