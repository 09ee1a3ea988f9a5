"""Evaluation beside the training: checkpoints go to a Ray actor of their own, one at a time.

    driver, every few seconds:  committed checkpoints without a result --hold--> a task --> EVALUATIONS.jsonl

The driver looks at storage alone, so whatever is killed, what is missing is made up by the next look or the
next start, and what is there is not done again. No worker takes part, so no step waits and no bit changes.
A task claims its own CPUs or GPUs and starts only while they are free; workers that are started again go
first (`BesideConfig.yield_after_s`).
"""

from __future__ import annotations

import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from plinth.checkpoint import evaluations, store
from plinth.checkpoint.evaluations import Evaluation
from plinth.checkpoint.maintenance import retain
from plinth.errors import PlinthError, StorageError, TakenOverError, first_line
from plinth.every import Every
from plinth.launch.config import BesideConfig
from plinth.observe.board import write_evaluations
from plinth.ray_labels import label_selector
from plinth.storage import Storage
from plinth.storage.lock import refuse_if_taken_over
from plinth.train.resolve import ResolvedStage

NICENESS = 10
"""Of the task's process: on a machine whose CPUs are promised twice the training goes first."""
SHOWN = 3
"""Numbers in the line of an evaluation; the run's page has all."""
END_POLL_S = 0.5

log = logging.getLogger(__name__)

Evaluate = Callable[[str, int], Mapping[str, float]]
"""What is found of the checkpoint of a stage and a step, by the names of the measures; picklable."""


@dataclass(frozen=True)
class BesideJob:
    """What the job says of it."""

    config: BesideConfig
    evaluate: Evaluate


class Tasks(Protocol):
    """Where an evaluation runs: `RayTasks`."""

    def has_room(self) -> bool:
        """Whether what a task claims is free now."""

    def start(self, stage: str, step: int) -> None:
        """Begin one; the one before has ended."""

    def result(self) -> Mapping[str, float] | None:
        """Of the one that was started; None while it lasts. Raises what it raised."""

    def cancel(self) -> None:
        """End it."""


@dataclass
class _Task:
    stage: ResolvedStage
    step: int
    token: str
    began: float


class Beside:
    """Evaluates the checkpoints of a run from its driver, as a context: a thread does it.

    Args:
        stages: with `evaluated`; in their order.
        storage: the run's folder.
        is_training: whether the workers are there; asked at each look.
    """

    def __init__(
        self,
        config: BesideConfig,
        stages: Sequence[ResolvedStage],
        storage: Storage,
        tasks: Tasks,
        is_training: Callable[[], bool],
    ) -> None:
        self._config, self._storage, self._tasks, self._is_training = config, storage, tasks, is_training
        self._stages = [stage for stage in stages if stage.evaluated is not None]
        self._found: dict[str, list[Evaluation]] = {}
        self._failed: dict[str, set[int]] = {stage.name: set() for stage in self._stages}
        self._task: _Task | None = None
        self._away_since: float | None = None
        self._is_ending = False
        self._lock = threading.Lock()  # the thread's look, and those of `finish`
        self._looking: Every | None = None

    def __enter__(self) -> Beside:
        failure = "checkpoints cannot be evaluated"
        self._looking = Every(self._config.look_every_s, self.look, failure)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._looking is not None:
            self._looking.close()
        self._cancel()

    def look(self) -> bool:
        """Take the result of the evaluation that has ended, begin the next one. Returns whether anything is
        left to be done."""
        with self._lock:
            self._collect()
            waiting = None if self._task else self._next()
            if waiting and (self._is_ending or self._trains()) and self._tasks.has_room():
                self._begin(*waiting)
            return self._task is not None or waiting is not None

    def finish(self, stop: Callable[[], bool]) -> None:
        """The workers are done: evaluate what is left, the last checkpoint first, for as long as the job
        allows, then let retention delete what waited.

        Args:
            stop: whether the user has asked to end.
        """
        self._is_ending = True
        try:
            if self._is_left_after(self._config.wait_s, stop):
                log.warning("some checkpoints are not evaluated; the same command makes up for them")
            self._cancel()
            for stage in self._stages:
                retain(stage.checkpoints, stage.checkpoint, evaluated=stage.evaluated)
        except Exception as error:  # the training has ended well, whatever becomes of this
            log.warning("some checkpoints are not evaluated: %s", first_line(error))

    def _is_left_after(self, wait_s: float, stop: Callable[[], bool]) -> bool:
        """Wait until all is evaluated; whether time was over, or the user asked to end, before."""
        deadline, is_said = time.monotonic() + wait_s, False
        while is_left := self.look():
            if time.monotonic() >= deadline or stop():
                break
            if not is_said:
                log.info("waiting up to %g s for evaluations of checkpoints", wait_s)
                is_said = True
            time.sleep(min(END_POLL_S, self._config.look_every_s))
        return is_left

    # -- one task -------------------------------------------------------------------------------------

    def _collect(self) -> None:
        task = self._task
        if task is None:
            return
        name = f"{task.stage.name}: the evaluation of step {task.step}"
        if not self._is_ending and not self._trains(self._config.yield_after_s):
            log.info("%s is put off: workers are being started", name)
            self._cancel()
            return
        try:
            numbers = self._tasks.result()
        except Exception as error:  # of any kind: the training does not depend on it
            self._fail(task, f"{name} failed: {first_line(error)}")
            return
        took_s = time.monotonic() - task.began
        if numbers is None and took_s > self._config.limit_s:
            self._tasks.cancel()
            self._fail(task, f"{name} did not end within {self._config.limit_s:g} s")
        elif numbers is not None:
            self._task = None
            self._keep(task, {key: float(value) for key, value in numbers.items()}, took_s)

    def _keep(self, task: _Task, numbers: dict[str, float], took_s: float) -> None:
        stage, folder = task.stage, task.stage.checkpoints
        assert stage.evaluated is not None
        try:
            refuse_if_taken_over(self._storage, stage.lock_token)
        except TakenOverError:
            return
        found = Evaluation(task.step, task.token, stage.evaluated.data, numbers, time.time(), took_s)
        lines = [*self._results(stage), found]
        evaluations.write(folder, lines)
        self._found[stage.name] = lines
        evaluations.release(folder)
        shown = ", ".join(f"{key} {value:.3f}" for key, value in list(numbers.items())[:SHOWN])
        log.info("%s: checkpoint of step %d evaluated in %.0f s: %s", stage.name, task.step, took_s, shown)
        points = sorted(
            (stage.steps_before + one.step, one.time, one.numbers)
            for one in lines
            if one.data == stage.evaluated.data
        )
        try:
            with tempfile.TemporaryDirectory() as local:
                write_evaluations(stage.storage, Path(local), points)
        except (StorageError, OSError) as error:
            log.warning("%s: TensorBoard lacks the last evaluation: %s", stage.name, first_line(error))

    def _fail(self, task: _Task, why: str) -> None:
        log.warning("%s; training is not concerned", why)
        self._task = None
        self._failed[task.stage.name].add(task.step)
        evaluations.release(task.stage.checkpoints)

    def _cancel(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            self._tasks.cancel()
            evaluations.release(task.stage.checkpoints)

    def _begin(self, stage: ResolvedStage, step: int) -> None:
        evaluations.hold(stage.checkpoints, step)
        token = str(store.read_record(stage.checkpoints, step)["token"])  # it is still there
        self._tasks.start(stage.name, step)
        self._task, self._away_since = _Task(stage, step, token, time.monotonic()), None

    # -- what is next ---------------------------------------------------------------------------------

    def _next(self) -> tuple[ResolvedStage, int] | None:
        """In the order of the steps, so that curves grow; at the end the last checkpoint first."""
        for stage in reversed(self._stages) if self._is_ending else self._stages:
            assert stage.evaluated is not None
            committed = [one.step for one in store.list_checkpoints(stage.checkpoints) if one.is_committed]
            steps = stage.evaluated.unevaluated(committed, self._results(stage), self._failed[stage.name])
            if steps:
                return stage, steps[-1 if self._is_ending else 0]
        return None

    def _results(self, stage: ResolvedStage) -> list[Evaluation]:
        """Those in storage, read once: this process alone writes them. Of a checkpoint that was written anew
        since, as by a job that has changed, there is none."""
        if stage.name not in self._found:
            there = {one.step for one in store.list_checkpoints(stage.checkpoints) if one.is_committed}
            self._found[stage.name] = [
                one
                for one in evaluations.read(stage.checkpoints)
                if one.step not in there or _token(stage.checkpoints, one.step) in ("", one.token)
            ]
        return self._found[stage.name]

    def _trains(self, for_s: float = 0.0) -> bool:
        """Whether the workers are there, or were within the last `for_s` seconds."""
        if self._is_training():
            self._away_since = None
            return True
        self._away_since = self._away_since or time.monotonic()
        return time.monotonic() - self._away_since < for_s


def _token(checkpoints: Storage, step: int) -> str:
    """Of the commit record; empty where it cannot be read."""
    try:
        return str(store.read_record(checkpoints, step)["token"])
    except PlinthError:
        return ""


class RayTasks:
    """Evaluations as calls of Ray actors, each in a process of its own that ends with it.

    Not as tasks of Ray: to cancel one that is just ending can abort this process, the driver of the training.

    Args:
        job: what is evaluated, and what that claims.
    """

    def __init__(self, job: BesideJob) -> None:
        self._config, self._evaluate = job.config, job.evaluate
        self._claims = {"CPU": job.config.num_cpus, "GPU": job.config.num_gpus}
        self._actor: Any = None
        self._ref: Any = None

    def has_room(self) -> bool:
        """Whether the cluster has as much that nobody claims."""
        import ray

        free = ray.available_resources()
        return all(free.get(kind, 0.0) >= amount for kind, amount in self._claims.items() if amount)

    def start(self, stage: str, step: int) -> None:
        """Begin one."""
        import ray

        config = self._config
        evaluator = ray.remote(
            num_cpus=config.num_cpus,
            num_gpus=config.num_gpus,
            label_selector=label_selector(config.ray_label),
            max_restarts=1,
            max_task_retries=1,
        )(Evaluator)
        self._actor = evaluator.remote()
        self._ref = self._actor.evaluate.remote(self._evaluate, stage, step, max(1, int(config.num_cpus)))

    def result(self) -> Mapping[str, float] | None:
        """Its numbers, once it has ended."""
        import ray

        if not ray.wait([self._ref], timeout=0)[0]:
            return None
        try:
            found: Mapping[str, float] = ray.get(self._ref)
        except ray.exceptions.RayTaskError as error:
            raise (error.cause if isinstance(error.cause, Exception) else error) from None
        finally:
            self._actor = None  # its process ends
        return found

    def cancel(self) -> None:
        """Kill it."""
        import ray

        ray.kill(self._actor)
        self._actor = None


class Evaluator:
    """A process that evaluates."""

    def evaluate(self, evaluate: Evaluate, stage: str, step: int, threads: int) -> dict[str, float]:
        """Numbers of a checkpoint, in as many threads."""
        import torch

        os.nice(NICENESS)
        torch.set_num_threads(threads)
        return dict(evaluate(stage, step))
