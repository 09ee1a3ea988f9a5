"""`poma sweep`: many trials of one job, of `poma pretrain` or `poma finetune`, scheduled by Ray Tune; resumes
by itself.

output/name/             see `plinth.sweep.records`
"""

from __future__ import annotations

import argparse
import logging
import threading
import time
from functools import partial
from typing import Any

from jobs.common.cluster import ray_cluster
from jobs.common.flags import storage_options
from jobs.common.run_layout import run_storage
from jobs.jobfile import read
from jobs.pretrain.check import check
from jobs.pretrain.config import PretrainJob
from jobs.pretrain.launch import launch
from jobs.pretrain.resolve import resolve
from jobs.sweep import show as sweep_show
from jobs.sweep.arguments import RUN
from jobs.sweep.config import AnySweepJob, HeadSweepJob, SweepJob
from jobs.sweep.kinds import AnyTrials, trials_of
from jobs.sweep.page import write_page
from jobs.sweep.pretraining import pretrain_job
from jobs.sweep.promote import promote
from jobs.sweep.state import Over, read_state
from jobs.sweep.tensorboard import write_hparams
from jobs.sweep.trials import PROBE
from plinth import config
from plinth.checkpoint import store
from plinth.data.config import ReaderKind
from plinth.errors import STOPPED_EXIT_CODE, ConfigError, PlinthError
from plinth.observe.terminal import log_to_terminal
from plinth.storage import Storage
from plinth.storage.lock import RunLock, read_lock, request_stop
from plinth.sweep.config import SchedulerKind, SearcherKind
from plinth.sweep.records import (
    INTERRUPTED,
    JOB_KEY,
    RUNNING,
    SHARED,
    SweepRecord,
    read_sweep,
    read_trials,
)
from plinth.sweep.samplers import FixedSampler, import_optuna, make_sampler, planned_trials


def run(arguments: argparse.Namespace) -> int:
    """`poma sweep JOB`, `poma sweep show` or `poma sweep promote`; returns the exit code."""
    if arguments.action == RUN:
        file = read(arguments.job)
        if file.kind == HeadSweepJob.kind:
            return run_job(file.resolve(HeadSweepJob, arguments.overrides))
        return run_job(file.resolve(SweepJob, arguments.overrides))
    options = storage_options(arguments)
    if arguments.action == "show":
        return sweep_show.show(arguments.uri, options, arguments.follow)
    return promote(
        arguments.uri, arguments.trial, options, arguments.out, arguments.with_checkpoint, arguments.output
    )


def run_job(job: AnySweepJob) -> int:
    """Run or resume the sweep, say what is best; returns the exit code."""
    log_to_terminal()
    storage = sweep_storage(job)
    asked = trials_of(job, storage)
    job.sweep.validate(asked.metrics())  # before any data set is opened
    before = read_sweep(storage)
    job = asked.pinned(resumes=before is not None)
    trials = prepare(job, storage)
    record = start_record(job, trials, before, storage)
    with ray_cluster(job.ray, job.sweep.workers, saves_on_sigterm=True), RunLock(storage, job.lock) as lock:
        storage.write(JOB_KEY, config.to_yaml(job).encode())
        print(f"job: {storage.uri}/{JOB_KEY}")
        if (
            isinstance(job, SweepJob)
            and trials.shares_warmup
            and not _train_shared(job, storage, lock.stop_wanted)
        ):
            return STOPPED_EXIT_CODE
        ended = _run_trials(job, storage, trials, record, lock.stop_wanted)
    _show(storage, Over())
    write_hparams(storage)
    if any(trial.history.reports for trial in read_trials(storage)):
        print(f"\npoma sweep promote {storage.uri} best   writes the best trial as a job of full length")
    return STOPPED_EXIT_CODE if ended.status == INTERRUPTED else 0


def sweep_storage(job: AnySweepJob) -> Storage:
    """The sweep's folder."""
    return Storage.from_uri(job.output, job.storage).child(job.name)


def prepare(job: AnySweepJob, storage: Storage) -> AnyTrials:
    """Find every mistake that can be found before anything starts.

    Raises:
        PlinthError: the first one.
    """
    sweep, trials = job.sweep, trials_of(job, storage)
    sweep.validate(trials.metrics())
    if sweep.searcher is SearcherKind.optuna:
        import_optuna()
    _check_comparable(trials)
    for key, dimension in sweep.space.items():
        for value in dimension.values:
            trials.job_of(PROBE, {key: value})
    trials.check()
    points = make_sampler(sweep, [])
    if isinstance(points, FixedSampler):
        for index in range(planned_trials(sweep)):
            values = points.sample(index)
            if values is not None:
                _admit(trials, index, values)
    return trials


def _admit(trials: AnyTrials, index: int, values: dict[str, Any]) -> None:
    try:
        trials.admit(values)
    except PlinthError as error:
        raise ConfigError(
            f"Trial {index} with {values} cannot run: {error}", "Narrow sweep.space, or give it a condition."
        ) from None


def _check_comparable(trials: AnyTrials) -> None:
    """Refuse a sweep whose trials could not be compared with each other."""
    sweep = trials.job.sweep
    for key in sweep.space:
        if trials.is_fixed(key):
            raise ConfigError(
                f"sweep.space.{key}: where, on what and by what a trial is judged cannot be varied."
            )
    for name, stage in trials.stages.items():
        if stage.data.reader is ReaderKind.ray:
            raise ConfigError(
                f"{name}.data.reader is ray: reading tasks of a trial would wait for CPUs that trials hold.",
                "Use auto or threads: the batches are the same.",
            )
        if f"{name}.global_batch_size" not in sweep.space:
            continue
        in_steps = stage.steps is not None or (stage.warmup_samples is None and stage.warmup_steps != 0)
        if in_steps:
            raise ConfigError(
                f"{name}.global_batch_size varies, but {name} is measured in steps: larger batches would "
                "train on more samples.",
                f"Give {name}.samples (or epochs) and {name}.warmup_samples.",
            )
        if sweep.scheduler.kind is SchedulerKind.pbt:
            raise ConfigError(
                f"{name}.global_batch_size cannot change within a run, as population based training does."
            )
    weights = [key for key in sweep.space if ".loss." in key]
    if weights and sweep.metric == "loss":
        better = sorted(trials.measured()) or ["scene_text"]
        raise ConfigError(
            f"sweep.metric loss is not comparable between trials: {weights[0]} changes what it adds up.",
            f"Use one of its terms or a downstream metric, such as {better[0]}.",
        )


def start_record(
    job: AnySweepJob, trials: AnyTrials, before: SweepRecord | None, storage: Storage
) -> SweepRecord:
    """The sweep's record for this start.

    Raises:
        ConfigError: there is another sweep of that name.
    """
    if before is not None:
        changed = config.changed_keys(before.identity, _identity(job, trials))
        if changed:
            listed = "; ".join(f"{key} was {old} and is {new}" for key, old, new in changed)
            raise ConfigError(
                f"{storage.uri} is another sweep: {listed}.",
                "Go back to that, or give this one another name.",
            )
    first = make_sampler(job.sweep, []).sample(0) or {}
    record = before or SweepRecord(
        name=job.name,
        metric=job.sweep.metric,
        mode=job.sweep.mode.value,
        scheduler=job.sweep.scheduler.kind.value,
        searcher=job.sweep.searcher.value,
        seed=job.sweep.seed,
        trials=planned_trials(job.sweep),
        identity=_identity(job, trials),
        samples=sum(length.samples for length in trials.lengths(first).values()),
        shares_warmup=trials.shares_warmup,
        started=time.time(),
    )
    record.trials, record.status = planned_trials(job.sweep), RUNNING
    record.starts += 1
    return record


def _identity(job: AnySweepJob, trials: AnyTrials) -> dict[str, Any]:
    """What decides the trials' results; more trials and a larger budget are welcome."""
    full = config.to_dict(job.sweep)
    sweep_keys = ("space", "metric", "mode", "searcher", "seed", "length", "include_default", "scheduler")
    judged = {key: full[key] for key in sweep_keys}
    return {**trials.decisive(), "zero": job.zero.identity, "sweep": judged}


def _train_shared(job: SweepJob, storage: Storage, stop: threading.Event) -> bool:
    """The warm-up that all trials start from; False if it was asked to stop."""
    shared = pretrain_shared(job, storage)
    checked, run = check(shared, resolve(shared)), run_storage(shared)
    (stage,) = checked.stages
    if (store.latest(stage.checkpoints) or 0) >= stage.total_steps:
        return True
    logging.getLogger("plinth").info("one warm-up for all trials: %s", run.uri)

    def pass_on() -> None:
        stop.wait()
        if (held := read_lock(run)) is not None:
            request_stop(run, held)

    threading.Thread(target=pass_on, name="plinth-stop", daemon=True).start()
    return not launch(shared, checked).is_stopped


def pretrain_shared(job: SweepJob, storage: Storage) -> PretrainJob:
    """The job of the shared warm-up."""
    shared = pretrain_job(job)
    shared.name, shared.output, shared.main = SHARED, storage.uri, None
    return shared


def _run_trials(
    job: AnySweepJob, storage: Storage, trials: AnyTrials, record: SweepRecord, stop: threading.Event
) -> SweepRecord:
    from plinth.sweep import schedulers  # here, because importing Ray takes seconds
    from plinth.sweep.driver import SweepDriver
    from plinth.sweep.trial import TrialTask

    sweep = job.sweep
    task = TrialTask(
        storage=storage,
        train=trials.train,
        lengths=trials.lengths,
        time_units=schedulers.units(sweep),
        metric=sweep.metric,
        mode=sweep.mode.value,
        measure=trials.measure if sweep.metric in trials.measured() else None,
    )
    resources = {"CPU": job.fit.cpus_per_worker}
    if job.fit.gpus_per_worker:
        resources["GPU"] = job.fit.gpus_per_worker
    driver = SweepDriver(
        config=sweep,
        storage=storage,
        task=task,
        record=record,
        resources=resources,
        admit=trials.admit,
        show=partial(_show, storage, Over()),
        start_timeout_s=job.fit.start_timeout_s,
        stop=stop,
    )
    return driver.run()


def _show(storage: Storage, over: Over) -> None:
    """Print the state and write the page.

    Args:
        over: what an earlier call has read.
    """
    state = read_state(storage, over)
    print("\n".join(sweep_show.describe(state)), flush=True)
    write_page(storage, state=state)
