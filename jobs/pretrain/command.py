"""`poma pretrain`: the warm-up, then the main stage from the warm-up's weights, as one job.

    output/name/
      config.yaml             the resolved job
      data.json               the versions of the data sets that it reads (`jobs.pretrain.data_versions`)
      run.json LOCK.json      the run's identity; who is writing it
      warmup/ main/           each: checkpoints/ metrics.jsonl tensorboard/ incidents/

The same command again resumes inside whichever stage it was in, on as many workers as there are now.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from jobs.common import models
from jobs.common.cluster import ray_cluster
from jobs.common.datasets import TeacherRecord, open_dataset
from jobs.common.run_layout import CONFIG_KEY, STAGES
from jobs.jobfile import asked
from jobs.pretrain import data_versions
from jobs.pretrain.build import build_from_sources
from jobs.pretrain.config import PretrainJob, StageConfig, stage_config
from jobs.runs.page import page_kept
from plinth import config
from plinth.checkpoint import save_load as checkpoint
from plinth.engine.process import log_to_terminal
from plinth.errors import STOPPED_EXIT_CODE, CheckpointError, ConfigError, DataError
from plinth.launch.fit import fit, possible_sizes
from plinth.storage import Storage
from plinth.storage.lock import RunLock, run_id
from plinth.train.loop import StageEnd
from plinth.train.stage_run import Notes, StageRun
from poma3d.network import model
from poma3d.sample import SampleShape, decode

if TYPE_CHECKING:
    from plinth.launch.placement import TrialPlacement


def run(arguments: argparse.Namespace) -> int:
    """Print the job, run it, and say where the run is; returns the exit code."""
    job = asked(PretrainJob, arguments)
    print(config.to_yaml(job))
    log_to_terminal()
    runs = prepare(job, arguments.accept_changes)
    with ray_cluster(job.ray, job.fit.workers.max):
        end = train(job, runs)
    if end.is_stopped:
        print(f"{run_storage(job).uri}: stopped as told; the same command goes on from there")
        return STOPPED_EXIT_CODE
    print(f"{run_storage(job).uri}: done")
    return 0


def prepare(job: PretrainJob, accept_changes: bool = False) -> list[StageRun]:
    """Find every mistake that can be found before anything starts or is written.

    Args:
        accept_changes: resume although the job differs from the one that wrote the last checkpoint.

    Raises:
        PlinthError: the first one.
    """
    job.fit.validate()
    job.lock.validate()
    runs = stage_runs(replace(job, teacher=models.absolute(job.teacher)), accept_changes)
    possible_sizes(job.fit, runs)
    return runs


def train(job: PretrainJob, runs: Sequence[StageRun], placement: TrialPlacement | None = None) -> StageEnd:
    """Run or resume both stages on the Ray that is there (or here, with no workers).

    Args:
        placement: resources to train in that are already reserved (a trial of a sweep).

    Raises:
        ConfigError: another process is writing this run.
    """
    storage = run_storage(job)
    with page_kept(storage, job.metrics.page_every_s), RunLock(storage, job.lock) as lock:
        storage.write(CONFIG_KEY, config.to_yaml(job).encode())
        data_versions.write_pins(storage, runs)
        identity = run_id(storage)
        return fit(
            job.fit, [replace(run, run_id=identity) for run in runs], storage, lock.stop_wanted, placement
        )


def run_storage(job: PretrainJob) -> Storage:
    """The run's folder."""
    return Storage.from_uri(job.output, job.storage).child(job.name)


def stage_runs(job: PretrainJob, accept_changes: bool = False) -> list[StageRun]:
    """What each stage of the job is told, in order, after checking that data, teacher and model fit.

    Raises:
        ConfigError: no stage, or a model that does not fit the samples.
        DataError: data of another schema version or teacher.
    """
    names = [name for name in STAGES if stage_config(job, name) is not None]
    if not names:
        raise ConfigError("The job has neither a warmup nor a main section.", "Give at least one.")
    record = models.record(job.teacher, job.storage)
    runs: list[StageRun] = []
    for name in names:
        weights_from = runs[-1].storage if runs else _start(job)
        runs.append(_stage_run(job, name, record, weights_from, accept_changes))
    return runs


def _start(job: PretrainJob) -> Storage | None:
    """The stage of another run that this job starts from."""
    if job.start is None:
        return None
    stage = Storage.from_uri(job.start, job.storage)
    if checkpoint.latest(stage.child("checkpoints")) is None:
        raise CheckpointError(
            f"start: {stage.uri} has no committed checkpoint.", "Give output/name/warmup of a run that has."
        )
    return stage


def _stage_run(
    job: PretrainJob, name: str, teacher: TeacherRecord, weights_from: Storage | None, accept_changes: bool
) -> StageRun:
    stage = stage_config(job, name)
    assert stage is not None
    if not stage.data.sources:
        raise ConfigError(f"{name}.data.sources is empty.", f"Name a data set: {name}.data.sources[0].uri.")
    kept = data_versions.read_pins(run_storage(job)).get(name, {})
    stage = replace(
        stage, data=replace(stage.data, sources=data_versions.pinned(stage.data.sources, kept, job.storage))
    )
    shapes = [open_dataset(source.uri, job.storage, teacher).shape for source in stage.data.sources]
    shape = shapes[0]
    _check_model(job, stage, shape)
    steps, warmup_steps = _in_steps(stage, name, job.optim.warmup_steps)
    lr = job.optim.lr if stage.lr is None else stage.lr
    optim = replace(job.optim, lr=lr, warmup_steps=warmup_steps)
    return StageRun(
        name=name,
        storage=run_storage(job).child(name),
        build_stage=partial(build_from_sources, job, name),
        decode=decode,
        data=stage.data,
        global_batch_size=stage.global_batch_size,
        micro_batch_size=stage.micro_batch_size,
        epochs=stage.epochs,
        steps=steps,
        seed=job.seed,
        optim=optim,
        zero=job.zero,
        checkpoint=job.checkpoint,
        metrics=job.metrics,
        guard=job.guard,
        ledger=job.ledger,
        storage_options=job.storage,
        weights_from=weights_from,
        config=_identity(job, stage, optim, shape, teacher),
        check_resume=partial(_check_resume, accept_changes),
    )


def _in_steps(stage: StageConfig, name: str, warmup_steps: int) -> tuple[int | None, int]:
    """Length (None where it is in epochs) and warm-up of a stage in optimizer steps.

    Raises:
        ConfigError: a length or a warm-up is given twice.
    """
    size = stage.global_batch_size
    for key, others in (("samples", ("steps", "epochs")), ("warmup_samples", ("warmup_steps",))):
        twice = [other for other in others if getattr(stage, other) is not None]
        if getattr(stage, key) is not None and twice:
            raise ConfigError(f"{name}.{key} and {name}.{twice[0]} are both given.", "Give one of the two.")
    steps = stage.steps if stage.samples is None else math.ceil(stage.samples / size)
    if stage.warmup_samples is not None:
        return steps, math.ceil(stage.warmup_samples / size)
    return steps, warmup_steps if stage.warmup_steps is None else stage.warmup_steps


def _check_model(job: PretrainJob, stage: StageConfig, shape: SampleShape) -> None:
    tower = models.open_teacher(job.teacher, job.storage).image_tower()
    if stage.loss.dense and not shape.image_tokens:
        raise DataError(
            "loss.dense needs the teacher's patch tokens, and the data set does not hold them.",
            "Run `poma embed` with image_tokens=true, or set loss.dense=0 as in the paper.",
        )
    try:
        model.validate(job.model, stage.loss, shape, tower)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _identity(
    job: PretrainJob, stage: StageConfig, optim: Any, shape: SampleShape, teacher: TeacherRecord
) -> dict[str, Any]:
    """What decides the result of a stage: a run that resumes must agree in all of it.

    Workers, ZeRO stage, reader, checkpoints and logging are left out: they change speed and memory only.
    The micro-batch size is in, because dropout draws per micro-batch. Where the data lies is free; what it
    holds is in the plan's fingerprint.
    """
    full = config.to_dict(job)
    data = {key: getattr(stage.data, key) for key in ("lanes", "window_row_groups")}
    data["weights"] = [source.weight for source in stage.data.sources]
    versions = data_versions.versions(stage.data.sources)
    if any(version is not None for version in versions):
        data["versions"] = versions
    return {
        "seed": job.seed,
        "start": job.start,
        "model": full["model"],
        "precision": full["zero"]["precision"],
        "exact_sums": job.zero.adds_exactly,
        "optim": asdict(optim),
        "loss": asdict(stage.loss),
        "data": data,
        "global_batch_size": stage.global_batch_size,
        "micro_batch_size": stage.micro_batch_size,
        "epochs": stage.epochs,
        "steps": _in_steps(stage, "", 0)[0],
        "shape": shape.to_dict(),
        "teacher": asdict(teacher),
    }


def _check_resume(accept_changes: bool, saved: Notes, now: Notes) -> None:
    """Name what changed since the last checkpoint, and refuse unless told to go on."""
    changed = config.changed_keys(saved["config"], now["config"])
    listed = "; ".join(f"{key} was {old} and is {new}" for key, old, new in changed)
    if not changed and saved["data"] != now["data"]:
        listed = "the data sets hold other samples"
    if not listed:
        return
    if accept_changes:
        print(f"resuming with changes: {listed}")
        if saved["data"] != now["data"]:
            print("the order of the data is another one: the pass under way is left, the next one begins")
        return
    raise CheckpointError(
        f"The job has changed since the run's last checkpoint: {listed}.",
        "Go back to those values, give the run another name, or add --accept-changes.",
    )
