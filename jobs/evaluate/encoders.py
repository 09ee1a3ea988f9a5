"""The encoder of a run, or of an export, ready to be evaluated or exported.

A run is one of `poma pretrain`, or of `poma finetune` with an encoder that was trained, too.
"""

from __future__ import annotations

import re
import tempfile
from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig

from jobs.common import models
from jobs.common.run_layout import CONFIG_KEY, HEADS, STAGES, TRAINING
from jobs.evaluate.config import EncoderWeights
from jobs.finetune.config import FinetuneJob
from jobs.finetune.llm.config import FinetuneLlmJob
from jobs.pretrain.build import build_stage
from jobs.pretrain.config import PretrainJob, stage_config
from plinth import config
from plinth.checkpoint import save_load as checkpoint
from plinth.checkpoint import store
from plinth.errors import CheckpointError, ConfigError
from plinth.locations import absolute, is_local
from plinth.storage import Storage, StorageOptions
from poma3d import export
from poma3d.export import Provenance, SceneEncoder
from poma3d.network.encoder import build_encoder
from poma3d.network.model import patch_grid
from poma3d.pretrained.config import TeacherConfig
from poma3d.sample import SampleShape

FINETUNED: dict[str, tuple[type[FinetuneJob] | type[FinetuneLlmJob], str]] = {
    FinetuneJob.kind: (FinetuneJob, HEADS),
    FinetuneLlmJob.kind: (FinetuneLlmJob, TRAINING),
}
"""Kinds of jobs that may train an encoder beside something else, and the stage that does."""
OF_HEAD = "encoder.vit."
"""Names of the encoder's weights in a checkpoint of `poma finetune`."""


def load(
    uri: str,
    options: StorageOptions,
    teacher: TeacherConfig | None = None,
    stage: str | None = None,
    step: int | None = None,
    weights: EncoderWeights = EncoderWeights.target,
) -> SceneEncoder:
    """The trained encoder at `uri`: a run's folder, or an exported encoder's.

    Args:
        teacher: where the run's teacher lies now, if not where the run found it.
        stage: of a run; the last one that has a committed checkpoint when None.
        step: of the checkpoint; the last when None.
        weights: of the run's main stage; the warm-up has one encoder, and an exported one is what it is.

    Raises:
        CheckpointError: neither a run nor an exported encoder, or no such checkpoint.
        ConfigError: an exported encoder of the other weights.
    """
    storage = Storage.from_uri(uri, options)
    storage.check()
    if storage.exists(CONFIG_KEY):
        raw = _raw_job(storage)
        if raw.get("kind") in FINETUNED:
            return _finetuned(storage, raw, options, teacher, stage, step)
        return _from_run(storage, options, teacher, stage, step, weights)
    if not storage.exists(export.CONFIG):
        raise CheckpointError(
            f"{storage.uri} is neither a run (no {CONFIG_KEY}) nor an exported encoder (no {export.CONFIG}).",
            "Give output/name of a pretrain job, or the output of `poma export`.",
        )
    with tempfile.TemporaryDirectory() as folder:
        for key in (export.CONFIG, export.WEIGHTS):
            storage.download(key, Path(folder) / key)
        try:
            encoder = export.load(folder)
        except ValueError as error:
            raise CheckpointError(str(error).replace(folder, storage.uri)) from None
    if weights is EncoderWeights.student and encoder.provenance.weights != weights.value:
        raise ConfigError(
            f"{storage.uri} was exported from the {encoder.provenance.weights} encoder.",
            "Leave weights=student off, or give the run.",
        )
    return encoder


def _finetuned(
    storage: Storage,
    raw: DictConfig,
    options: StorageOptions,
    teacher: TeacherConfig | None,
    stage: str | None,
    step: int | None,
) -> SceneEncoder:
    """The encoder of a run of `poma finetune` that trained it, too."""
    schema, own_stage = FINETUNED[raw.get("kind")]
    job = config.build(schema, [(f"{storage.uri}/{CONFIG_KEY}", raw)])
    if job.encoder is None:
        raise ConfigError(
            f"{storage.uri} is a run of `poma finetune` on features: it has no encoder of its own.",
            "Give the encoder that its features were made with.",
        )
    if stage not in (None, own_stage):
        raise ConfigError(f"stage is {stage!r}.", f"A run of `poma finetune` has {own_stage} alone.")
    made = load(job.encoder.source, options, teacher or job.encoder.teacher)
    saved_in = storage.child(own_stage).child("checkpoints")
    saved = store.read_state(saved_in, step)
    with tempfile.TemporaryDirectory() as scratch:
        tensors = checkpoint.read_full(saved_in, Path(scratch), saved["step"])
    own = {name.removeprefix(OF_HEAD): t for name, t in tensors.items() if name.startswith(OF_HEAD)}
    try:
        made.vit.load_state_dict(own)
    except RuntimeError as error:
        raise _of_another_model(saved_in, saved["step"], error) from None
    made.provenance = replace(made.provenance, run=checkpoint_name(storage, own_stage, saved["step"]))
    return made


def checkpoint_name(run: Storage, stage: str, step: int) -> str:
    """How a checkpoint is written down in a provenance: `/home/me/runs/rooms/main step 40`."""
    return f"{run.uri}/{stage} step {step}"


def named_checkpoint(name: str) -> tuple[str, str, int] | None:
    """Run, stage and step of what `checkpoint_name` wrote; None for any other text."""
    found = re.fullmatch(r"(.+)/(\w+) step (\d+)", name)
    return (found[1], found[2], int(found[3])) if found else None


def _of_another_model(saved_in: Storage, step: int, error: Exception) -> CheckpointError:
    reason = " ".join(str(error).split())
    return CheckpointError(
        f"{saved_in.uri}: the checkpoint of step {step} is of another model: {reason}",
        "Use the version of this program that wrote it.",
    )


def untrained(job: PretrainJob, shape: SampleShape) -> SceneEncoder:
    """What the run's encoder was before training: the teacher's image tower on point maps."""
    tower = models.outline(job.teacher, job.storage).tower
    return SceneEncoder.of(build_encoder(job.model.encoder, tower, patch_grid(shape, tower)))


def is_pretrained(storage: Storage) -> bool:
    """Whether there is a run that says what its encoder was before training: one of `poma pretrain`."""
    return storage.exists(CONFIG_KEY) and _raw_job(storage).get("kind") not in FINETUNED


def load_untrained(
    uri: str, options: StorageOptions, shape: SampleShape, teacher: TeacherConfig | None = None
) -> SceneEncoder:
    """What the encoder of the run at `uri` was before training, for samples of `shape`.

    Raises:
        ConfigError: no run of `poma pretrain` there; an exported encoder does not say what it was.
    """
    storage = Storage.from_uri(uri, options)
    storage.check()
    if not is_pretrained(storage):
        raise ConfigError(
            f"{storage.uri} is no run of `poma pretrain`.", "Give output/name of a pretrain job."
        )
    job = read_job(storage)
    job.storage = options
    if teacher is not None:
        job.teacher = teacher
    _check_teacher(storage, job.teacher)
    made, record = untrained(job, shape), models.record(job.teacher, options)
    made.provenance = Provenance(record.name, record.revision, run=f"{storage.uri} before training")
    return made


def read_job(storage: Storage) -> PretrainJob:
    """The job that a run was started with."""
    return config.build(PretrainJob, [(f"{storage.uri}/{CONFIG_KEY}", _raw_job(storage))])


def _raw_job(storage: Storage) -> DictConfig:
    return config.parse(storage.read(CONFIG_KEY).decode(), f"{storage.uri}/{CONFIG_KEY}")


def _check_teacher(storage: Storage, teacher: TeacherConfig) -> None:
    """Refuse a path that leads nowhere before a hub is asked for it. A hub id without its commit is none
    that a run could have trained with.

    Raises:
        ConfigError: there is no such folder.
    """
    source = teacher.source
    if source and is_local(source) and not Path(source).is_dir() and teacher.revision is None:
        raise ConfigError(
            f"The teacher of {storage.uri} is {source}, and there is no such folder here.",
            "Run this in the folder where the run was started, or put the teacher's folder there.",
        )


def _has_checkpoint(storage: Storage, stage: str) -> bool:
    return store.latest(storage.child(stage).child("checkpoints")) is not None


def _from_run(
    storage: Storage,
    options: StorageOptions,
    teacher: TeacherConfig | None,
    stage: str | None,
    step: int | None,
    weights: EncoderWeights,
) -> SceneEncoder:
    job = read_job(storage)
    job.storage = options
    if teacher is not None:
        job.teacher = teacher
    _check_teacher(storage, job.teacher)
    if stage not in (None, *STAGES):
        raise ConfigError(f"stage is {stage!r}.", f"Use one of {', '.join(STAGES)}.")
    candidates = [stage] if stage else [s for s in reversed(STAGES) if stage_config(job, s) is not None]
    found = next((s for s in candidates if _has_checkpoint(storage, s)), candidates[0])
    saved_in = storage.child(found).child("checkpoints")
    saved = store.read_state(saved_in, step)
    with tempfile.TemporaryDirectory() as scratch:
        tensors = checkpoint.read_full(saved_in, Path(scratch), saved["step"])
    built = build_stage(job, found, SampleShape(**saved["notes"]["config"]["shape"]))
    try:
        built.load_state_dict(tensors)
    except RuntimeError as error:
        raise _of_another_model(saved_in, saved["step"], error) from None
    record = models.record(job.teacher, options)
    origin = Provenance(
        teacher=record.name,
        teacher_revision=record.revision,
        logit_scale=models.open_teacher(job.teacher, options).logit_scale,
        run=checkpoint_name(storage, found, saved["step"]),
        teacher_source=absolute(job.teacher).source,
        teacher_kind=job.teacher.kind,
        weights=weights.value,
    )
    is_student = weights is EncoderWeights.student
    return SceneEncoder.of(built.encoder if is_student else built.trained_encoder, origin)
