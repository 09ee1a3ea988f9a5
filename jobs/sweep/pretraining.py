"""Trials that pretrain: one warm-up for all where they can share it, measured on held-out scenes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from jobs.common import models
from jobs.common.devices import own_device
from jobs.common.run_layout import STAGES
from jobs.evaluate import command as evaluate
from jobs.evaluate import encoders
from jobs.evaluate import measure as evaluation
from jobs.evaluate.config import EvaluateJob
from jobs.pretrain import data_versions
from jobs.pretrain.check import check
from jobs.pretrain.config import PretrainJob, StageConfig, stage_config
from jobs.pretrain.launch import launch
from jobs.pretrain.resolve import resolve
from jobs.sweep.config import SweepJob
from jobs.sweep.trials import FIXED_KEYS, PROBE, Trials, shortened, without
from plinth import config
from plinth.data import manifest as manifests
from plinth.errors import ConfigError
from plinth.launch.placement import TrialPlacement
from plinth.locations import absolute
from plinth.storage import Storage
from plinth.sweep.records import JOB_KEY, SHARED, Measured, StageLength, Values
from poma3d import stages

OWN_KEYS = ("kind", "evaluation", "sweep")
"""Keys of a sweep's job file beside those of a pretraining job."""

DECISIVE = ("seed", "model", "start", "warmup", "main", "optim", "evaluation")
"""Sections that decide the result of a trial."""


@dataclass(frozen=True)
class PretrainTrials(Trials[SweepJob, PretrainJob]):
    """Trials of a `SweepJob`."""

    fixed_keys = (*FIXED_KEYS, "start")

    @property
    def shares_warmup(self) -> bool:
        """All would have the same warm-up: only keys of the main stage vary."""
        job = self.job
        is_main = all(key.startswith(f"{STAGES[1]}.") for key in job.sweep.space)
        return job.sweep.share_warmup and is_main and job.warmup is not None and job.main is not None

    @property
    def stages(self) -> Mapping[str, StageConfig]:
        """Those of the job."""
        return {name: stage for name in STAGES if (stage := stage_config(self.job, name)) is not None}

    def metrics(self) -> set[str]:
        """Losses of the last stage, and the measures that the job asks for."""
        if not self.stages:
            raise ConfigError("The job has neither a warmup nor a main section.", "Give at least one.")
        name, last = list(self.stages.items())[-1]
        return {"loss", "grad_norm"} | stages.STAGES[name].reported(last.loss) | self.measured()

    def measured(self) -> set[str]:
        """Those of the held-out scenes."""
        if self.job.evaluation is None:
            return set()
        asked = self.job.evaluation.retrieval
        labels = [*(f"R@{m}" for m in asked.utterances), evaluation.SCENE_QUERY]
        return {evaluation.PROBE, *(f"{label}-{best}" for label in labels for best in asked.best)}

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

    def pinned(self, resumes: bool) -> SweepJob:
        """No relative path, every data set at its version."""
        job = absolute(self.job)
        kept: dict[str, dict[str, int]] = {}
        if resumes:
            first = config.parse(self.storage.read(JOB_KEY).decode(), JOB_KEY)
            for name in STAGES:
                for source in (first.get(name) or {}).get("data", {}).get("sources", []):
                    uri, version = manifests.split_version(source["uri"])
                    kept.setdefault(name, {}).update({uri: version} if version is not None else {})
        changed: dict[str, Any] = {}
        for name in self.stages:
            stage = stage_config(job, name)
            assert stage is not None
            opened = data_versions.open_pinned(stage.data.sources, kept.get(name, {}), job.storage)
            sources = data_versions.at_versions(stage.data.sources, opened)
            changed[name] = replace(stage, data=replace(stage.data, sources=sources))
        return replace(job, **changed)

    def check(self) -> None:
        """The held-out scenes are there."""
        if self.job.evaluate_beside is not None:
            raise ConfigError(
                "evaluate_beside does not go with a sweep.", "Trials are measured by the evaluation section."
            )
        if self.job.evaluation is not None:
            evaluate.held_out(evaluate_job(self.job, self.storage))

    def decisive(self) -> dict[str, Any]:
        """Model, stages, and what they are measured by."""
        full = config.to_dict(self.job)
        return {key: full[key] for key in DECISIVE}

    def plain(self) -> PretrainJob:
        """A pretraining job."""
        return pretrain_job(self.job)

    def placed(self, job: PretrainJob) -> PretrainJob:
        """Shortened, started from the shared warm-up where there is one."""
        for stage in (job.warmup, job.main):
            if stage is not None:
                shortened(stage, self.job.sweep.length)
        if self.shares_warmup:
            job.warmup, job.start = None, self.storage.child(SHARED).child(STAGES[0]).uri
        return job

    def admit(self, values: Values) -> None:
        """Resolve and check it."""
        job = self._probe(values)
        check(job, resolve(job))

    def train(self, name: str, values: Values, placement: TrialPlacement, has_changed: bool) -> None:
        """As `poma pretrain` does."""
        job = self.job_of(name, values)
        launch(job, check(job, resolve(job, accept_changes=has_changed)), placement)

    def lengths(self, values: Values) -> dict[str, StageLength]:
        """Of its stages."""
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
    return without(job, PretrainJob, OWN_KEYS)
