"""A pretraining job with nothing left to find out: data sets at their versions, teacher, order, lengths.

Each manifest is opened once and the teacher is opened once, here in the driver. Workers get the result.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from jobs.common import models
from jobs.common.datasets import Dataset, open_dataset
from jobs.common.run_layout import STAGES, run_storage
from jobs.evaluate.config import check_measures
from jobs.pretrain import data_versions
from jobs.pretrain.best_metric import check_best_metric
from jobs.pretrain.build import build_from_sources
from jobs.pretrain.config import (
    EvaluateBesideConfig,
    PretrainJob,
    StageConfig,
    stage_config,
)
from jobs.pretrain.resume import KeyNames
from jobs.pretrain.stage_spec import checks, in_steps, optim_of, stage_spec
from plinth import config
from plinth.checkpoint import store
from plinth.checkpoint.evaluations import Evaluated
from plinth.engine.config import OptimConfig
from plinth.errors import CheckpointError, ConfigError, DataError, raise_together
from plinth.locations import absolute
from plinth.storage import Storage
from plinth.train import resolve as stages
from plinth.train.resolve import ResolvedStage
from poma3d.network import model
from poma3d.network.config import AS_WRITTEN, ModelConfig
from poma3d.pretrained.config import TeacherRecord
from poma3d.sample import SampleShape

HASH_CHARACTERS = 8
SAME_IN_A_STAGE = ("views", "height", "width", "xyz")
"""Sizes in which the data sets of one stage agree."""


def resolve(job: PretrainJob, accept_changes: bool = False) -> list[ResolvedStage]:
    """The stages of the job in order; data, teacher and model fit each other.

    Args:
        accept_changes: resume although the job differs from the one that wrote the last checkpoint.

    Raises:
        ConfigError: no stage, or a model that does not fit the samples.
        DataError: data of another schema version or teacher.
    """
    check_settings(job)
    names = _names(job)
    there = absolute(job)  # workers run in other folders
    record = models.record(there.teacher, job.storage)
    kept = data_versions.read_pins(run_storage(job))
    held_out = _held_out(there, record)
    resolved: list[ResolvedStage] = []
    for name in names:
        weights_from = resolved[-1].storage if resolved else _start(job)
        stage = stage_config(there, name)
        assert stage is not None
        opened = data_versions.open_pinned(stage.data.sources, kept.get(name, {}), job.storage, record)
        sources = data_versions.at_versions(stage.data.sources, opened)
        stage = replace(stage, data=replace(stage.data, sources=sources))
        first = Dataset(opened[0].storage, opened[0].manifest)
        _check_shapes(name, [Dataset(one.storage, one.manifest) for one in opened])
        shape = first.shape
        _check_model(there, stage, shape)
        optim = optim_of(job, stage, name)
        identity = _identity(job, stage, optim, shape, first.teacher or record)
        spec = replace(
            stage_spec(
                job,
                stage,
                name,
                partial(build_from_sources, there, name),
                identity,
                accept_changes,
                _names_in_job(job, name),
            ),
            steps_before=sum(done.total_steps for done in resolved),
            weights_from=weights_from,
        )
        whole = stages.resolve(spec, opened)
        if job.evaluate_beside is not None and held_out is not None:
            _check_views(name, first, held_out)
            whole = _evaluated(whole, job.evaluate_beside, held_out)
        resolved.append(whole)
    return resolved


def _held_out(job: PretrainJob, teacher: TeacherRecord) -> Dataset | None:
    """What checkpoints are measured on beside the training."""
    if job.evaluate_beside is None:
        return None
    return open_dataset(job.evaluate_beside.data, job.storage, teacher)


def _evaluated(stage: ResolvedStage, asked: EvaluateBesideConfig, held_out: Dataset) -> ResolvedStage:
    first = f", first {asked.max_samples}" if asked.max_samples else ""
    data = f"{held_out.storage.uri} {held_out.manifest.hash[:HASH_CHARACTERS]}{first}"
    every_steps = asked.every * stage.checkpoint.every_steps
    return replace(stage, evaluated=Evaluated(data, every_steps, stage.total_steps, asked.keep_waiting))


def _check_views(name: str, trained_on: Dataset, held_out: Dataset) -> None:
    """Refuse held-out views that the encoder cannot take, before anything is trained.

    Raises:
        DataError: naming both sizes.
    """
    sizes = [(one.shape.height, one.shape.width) for one in (trained_on, held_out)]
    if sizes[0] != sizes[1]:
        raise DataError(
            f"{name} trains on views of {sizes[0][0]} x {sizes[0][1]} pixels, evaluate_beside.data "
            f"({held_out.storage.uri}) has views of {sizes[1][0]} x {sizes[1][1]}.",
            f"Ingest it with shape.height={sizes[0][0]} shape.width={sizes[0][1]}.",
        )


def _names(job: PretrainJob) -> list[str]:
    return [name for name in STAGES if stage_config(job, name) is not None]


def check_settings(job: PretrainJob) -> None:
    """What can be said without a network: opening teacher and data takes seconds to minutes.

    Raises:
        PlinthError: the value that is out of range, or all of them together.
    """
    found = {name: stage for name in STAGES if (stage := stage_config(job, name)) is not None}
    if not found:
        raise ConfigError("The job has neither a warmup nor a main section.", "Give at least one.")
    raise_together(
        [
            *checks(job, list(found.items())),
            *(partial(_check_sources, stage, name) for name, stage in found.items()),
            partial(_check_model_settings, job.model),
            partial(_check_compile, job),
            partial(_check_beside, job),
            partial(check_best_metric, job),
        ]
    )


def _check_model_settings(config: ModelConfig) -> None:
    try:
        model.validate_settings(config)
    except ValueError as error:
        raise ConfigError(f"model.{error}") from None


def _check_compile(job: PretrainJob) -> None:
    """Stage 3 gathers weights around each module's call, which a compiled encoder does not make."""
    if job.model.encoder.compile != AS_WRITTEN and job.zero.stage == 3:
        raise ConfigError(
            f"model.encoder.compile {job.model.encoder.compile} does not go with zero.stage 3.",
            f"Use zero.stage=2, or model.encoder.compile={AS_WRITTEN}.",
        )


def _check_beside(job: PretrainJob) -> None:
    asked = job.evaluate_beside
    if asked is None:
        return
    asked.validate("evaluate_beside")
    if not asked.kinds:
        raise ConfigError("evaluate_beside.kinds is empty.", "Name retrieval, probe or both.")
    check_measures("evaluate_beside.", asked.retrieval, asked.probe)
    if job.fit.workers.max == 0:
        raise ConfigError(
            "evaluate_beside needs Ray, and fit.workers is 0.",
            "Use fit.workers=1, or leave evaluate_beside out and run `poma evaluate` afterwards.",
        )


def _check_sources(stage: StageConfig, name: str) -> None:
    if not stage.data.sources:
        raise ConfigError(f"{name}.data.sources is empty.", f"Name a data set: {name}.data.sources[0].uri.")


def _start(job: PretrainJob) -> Storage | None:
    """The stage of another run that this job starts from."""
    if job.start is None:
        return None
    stage = Storage.from_uri(job.start, job.storage)
    if store.latest(stage.child("checkpoints")) is None:
        raise CheckpointError(
            f"start: {stage.uri} has no committed checkpoint.", "Give output/name/warmup of a run that has."
        )
    return stage


def _check_shapes(name: str, sets: Sequence[Dataset]) -> None:
    """Refuse data sets that make no batch together: the workers would, but minutes later and by column.

    Raises:
        DataError: naming two of them, and what they differ in.
    """
    first = sets[0]
    for other in sets[1:]:
        a, b = (asdict(one.shape) for one in (first, other))
        differing = [f"{key} ({a[key]} against {b[key]})" for key in SAME_IN_A_STAGE if a[key] != b[key]]
        if differing:
            raise DataError(
                f"{name}.data.sources: {first.storage.uri} and {other.storage.uri} differ in "
                f"{', '.join(differing)}.",
                "Samples of one batch are of one shape: leave one out, or build it again.",
            )


def _check_model(job: PretrainJob, stage: StageConfig, shape: SampleShape) -> None:
    tower = models.outline(job.teacher, job.storage).tower
    if stage.loss.dense and not shape.image_tokens:
        raise DataError(
            "loss.dense needs the teacher's patch tokens, and the data set does not hold them.",
            "Run `poma embed` with image_tokens=true, or set loss.dense=0 as in the paper.",
        )
    try:
        model.validate(job.model, stage.loss, shape, tower)
    except ValueError as error:
        raise ConfigError(_with_section(str(error))) from None


def _with_section(message: str) -> str:
    """Keys as the job has them: the model names its own section's from there."""
    return re.sub(r"(?<![\w.])(masks|encoder|predictor|ema)\.(?=[a-z])", r"model.\1.", message)


def _names_in_job(job: PretrainJob, stage: str) -> KeyNames:
    """Keys of the job for those of `_identity`."""
    revision = "teacher.source (its weights)" if job.teacher.revision is None else "teacher.revision"
    return KeyNames(
        {"loss": f"{stage}.loss"},
        {
            "shape": f"{stage}.data.sources (their {{rest}})",
            "teacher.revision": revision,
            "teacher": "teacher.source (its {rest})",
        },
    )


def _identity(
    job: PretrainJob, stage: StageConfig, optim: OptimConfig, shape: SampleShape, teacher: TeacherRecord
) -> dict[str, Any]:
    """What decides the result of a stage: a run that resumes must agree in all of it.

    Workers, reader, checkpoints and logging are left out: they change speed and memory only. Of ZeRO that
    counts which changes the bits.
    The micro-batch size is in, because dropout draws per micro-batch. Where the data lies is free; what it
    holds is in the plan's fingerprint.
    """
    full = config.to_dict(job)
    if job.model.encoder.compile == AS_WRITTEN:
        del full["model"]["encoder"]["compile"]  # checkpoints from before it was a key lack it
    data = {key: getattr(stage.data, key) for key in ("lanes", "window_row_groups")}
    data["weights"] = [source.weight for source in stage.data.sources]
    versions = data_versions.versions(stage.data.sources)
    if any(version is not None for version in versions):
        data["versions"] = versions
    return {
        "seed": job.seed,
        "start": job.start,
        "model": full["model"],
        "zero": job.zero.identity,
        "optim": asdict(optim),
        "loss": asdict(stage.loss),
        "data": data,
        "global_batch_size": stage.global_batch_size,
        "micro_batch_size": stage.micro_batch_size,
        "epochs": stage.epochs,
        "steps": in_steps(stage, "", 0)[0],
        "shape": shape.to_dict(),
        "teacher": asdict(teacher),
    }
