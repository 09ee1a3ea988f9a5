"""External trackers that get a stage's scalars, by the same names as TensorBoard: W&B, MLflow.

Rank 0 queues what it logs, and one thread per tracker sends it, so training never waits for a tracker. A
failing sink is disabled with a warning. A resumed run continues the same tracker run, which is found by our
run's id.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

from plinth.observe.config import MetricsConfig, SinkKind
from plinth.observe.ledger import FAILED, FINISHED, STOPPED
from plinth.redaction import redact

QUEUED_STEPS = 4096
"""Steps that may wait for a slow tracker; one that is further behind is disabled."""
CLOSE_TIMEOUT_S = 60.0
STEP_KEY = "step"
ID_TAG = "plinth.id"
MLFLOW_METRICS_PER_CALL = 1000
MLFLOW_PARAMS_PER_CALL = 100
MLFLOW_VALUE_CHARS = 500
"""Longest value of a parameter that every kind of MLflow store takes."""
MLFLOW_STATUS = {FINISHED: "FINISHED", STOPPED: "KILLED", FAILED: "FAILED"}

log = logging.getLogger(__name__)

Row = tuple[int, dict[str, float]]
"""A step, and its scalars by name."""


@dataclass(frozen=True)
class RunName:
    """How the tracker knows the run."""

    id: str
    """The same whenever this stage of this run is resumed."""
    group: str
    """Name of our run: groups its stages in the tracker."""
    name: str


class Tracker(Protocol):
    """One tracker; all calls come from one thread and may raise anything."""

    def log(self, rows: Sequence[Row]) -> None:
        """Send scalars."""

    def close(self, outcome: str) -> None:
        """The stage has ended: FINISHED, STOPPED or FAILED."""


class Sinks:
    """All trackers of a stage; on rank 0 only. Raises nothing.

    Args:
        resolved: the stage's settings; secrets in them are hidden.
        folder: on this machine, for the trackers' own files.
    """

    def __init__(
        self, config: MetricsConfig, name: RunName, resolved: Mapping[str, Any], folder: Path
    ) -> None:
        plain = redacted(resolved)
        self._feeds = [
            _Feed(kind, lambda kind=kind: TRACKERS[kind](config, name, plain, folder))  # type: ignore[misc]
            for kind in config.sinks
        ]

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        """Queue the scalars of a step."""
        for feed in self._feeds:
            feed.put((step, dict(scalars)))

    def close(self, outcome: str) -> None:
        """Send the rest; only the first call counts."""
        for feed in self._feeds:
            feed.end(outcome)
        deadline = time.monotonic() + CLOSE_TIMEOUT_S
        for feed in self._feeds:
            feed.join(max(0.0, deadline - time.monotonic()))
        self._feeds = []


class _Feed:
    """Sends rows to one tracker from a thread."""

    def __init__(self, kind: SinkKind, connect: Callable[[], Tracker]) -> None:
        self._kind, self._connect = kind, connect
        self._rows: queue.Queue[Row] = queue.Queue(QUEUED_STEPS)
        self._outcome: str | None = None
        self._ended, self._is_off = threading.Event(), False
        self._thread = threading.Thread(target=self._run, name=f"plinth-{kind.value}", daemon=True)
        self._thread.start()

    def put(self, row: Row) -> None:
        if self._is_off:
            return
        try:
            self._rows.put_nowait(row)
        except queue.Full:
            self._disable(f"it is {QUEUED_STEPS} steps behind")

    def end(self, outcome: str) -> None:
        self._outcome = outcome
        self._ended.set()

    def join(self, timeout_s: float) -> None:
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            self._disable(f"it did not take the last metrics in {CLOSE_TIMEOUT_S:g} s")

    def _run(self) -> None:
        try:
            tracker = self._connect()
            while not self._is_off:
                is_last = self._ended.is_set()  # read before the rows are taken: none comes after
                if rows := list(self._waiting()):
                    tracker.log(rows)
                elif is_last:
                    break
            tracker.close(self._outcome or FAILED)
        except Exception as error:  # training continues without the tracker
            self._disable(str(error) or type(error).__name__)

    def _waiting(self) -> Iterator[Row]:
        """The rows in the queue, after a short wait for the first."""
        with contextlib.suppress(queue.Empty):
            yield self._rows.get(timeout=0.2)
            while True:
                yield self._rows.get_nowait()

    def _disable(self, why: str) -> None:
        if not self._is_off:
            self._is_off = True
            log.warning("%s gets no more metrics, training continues: %s", self._kind.value, redact(why))


class _Wandb:
    """Weights & Biases. Steps that are repeated after a kill or a rollback keep their numbers: the step is a
    metric of its own rather than W&B's counter, which only rises."""

    def __init__(self, config: MetricsConfig, name: RunName, resolved: dict[str, Any], folder: Path) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        quiet = wandb.Settings(
            console="off",  # else it sends the terminal's output, without redaction
            silent=True, disable_git=True, disable_code=True, x_disable_meta=True,
        )  # fmt: skip
        self._run = wandb.init(
            project=config.sinks_project, entity=config.wandb_entity, id=name.id, name=name.name,
            group=name.group, resume="allow", config=resolved, settings=quiet,
            dir=os.environ.get("WANDB_DIR", str(folder)),
        )  # fmt: skip
        self._run.define_metric(STEP_KEY)
        self._run.define_metric("*", step_metric=STEP_KEY)

    def log(self, rows: Sequence[Row]) -> None:
        for step, scalars in rows:
            self._run.log({STEP_KEY: step, **scalars})

    def close(self, outcome: str) -> None:
        self._run.finish(exit_code=1 if outcome == FAILED else 0)


class _Mlflow:
    """MLflow, through its client only, so that nothing is global to the process."""

    def __init__(self, config: MetricsConfig, name: RunName, resolved: dict[str, Any], folder: Path) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient

        for noisy in ("alembic", "mlflow"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        assert config.mlflow_uri is not None
        self._client = MlflowClient(tracking_uri=config.mlflow_uri)
        found = self._client.get_experiment_by_name(config.sinks_project)
        experiment = found.experiment_id if found else self._client.create_experiment(config.sinks_project)
        query = f"tags.`{ID_TAG}` = '{name.id}'"
        runs = self._client.search_runs([experiment], filter_string=query, max_results=1)
        if runs:
            self._id = runs[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
        else:
            tags = {ID_TAG: name.id, "plinth.run": name.group}
            made = self._client.create_run(experiment, tags=tags, run_name=name.name)
            self._id = made.info.run_id
            self._log_config(resolved)

    def log(self, rows: Sequence[Row]) -> None:
        from mlflow.entities import Metric

        now_ms = int(1000 * time.time())
        found = [
            Metric(key, value, now_ms, step)
            for step, scalars in rows
            for key, value in scalars.items()
            if math.isfinite(value)  # stores differ in how they treat the others
        ]
        for start in range(0, len(found), MLFLOW_METRICS_PER_CALL):
            self._client.log_batch(self._id, metrics=found[start : start + MLFLOW_METRICS_PER_CALL])

    def close(self, outcome: str) -> None:
        self._client.set_terminated(self._id, status=MLFLOW_STATUS[outcome])

    def _log_config(self, resolved: dict[str, Any]) -> None:
        """Called once: parameters of an MLflow run cannot be changed."""
        from mlflow.entities import Param

        params = [Param(key, str(value)[:MLFLOW_VALUE_CHARS]) for key, value in flat(resolved).items()]
        for start in range(0, len(params), MLFLOW_PARAMS_PER_CALL):
            self._client.log_batch(self._id, params=params[start : start + MLFLOW_PARAMS_PER_CALL])


TRACKERS: dict[SinkKind, Callable[[MetricsConfig, RunName, dict[str, Any], Path], Tracker]] = {
    SinkKind.wandb: _Wandb,
    SinkKind.mlflow: _Mlflow,
}


def redacted(value: Any) -> Any:
    """Nested dicts and lists as JSON has them, without secrets."""
    if isinstance(value, Mapping):
        return {str(key): _hidden(str(key), redacted(item)) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [redacted(item) for item in value]
    if isinstance(value, Enum):
        return value.name
    if value is None or isinstance(value, bool | int | float):
        return value
    return redact(str(value))


def _hidden(key: str, value: Any) -> Any:
    """Hide a value that only its name makes a secret, as in `password: hunter2`."""
    if not isinstance(value, str):
        return value
    pair = redact(f"{key}={value}")
    return pair.removeprefix(f"{key}=") if pair.startswith(f"{key}=") else value


def flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Leaves by their dotted keys."""
    found: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, Mapping):
            found |= flat(item, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = item
    return found
