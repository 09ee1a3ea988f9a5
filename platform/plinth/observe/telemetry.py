"""Prometheus metrics of a running job, exported through Ray; all names are here.

Each node's Ray agent serves the metrics of its processes (`ray start --metrics-export-port`), with `ray_`
before their names and the node's address as a label. `infra/grafana` plots them; a test checks its queries
against `METRICS`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

GAUGE, COUNTER = "gauge", "counter"
EXPORTED_PREFIX = "ray_"
COUNTER_SUFFIX = "_total"
EVERY_S = 1.0
RUN_TAGS = ("run", "stage")
RANK_TAGS = (*RUN_TAGS, "rank")
TERM_TAGS = (*RUN_TAGS, "term")


@dataclass(frozen=True)
class MetricSpec:
    """A metric as it is declared to Ray."""

    kind: str
    help: str
    tags: tuple[str, ...] = RUN_TAGS


METRICS: dict[str, MetricSpec] = {
    "plinth_step": MetricSpec(GAUGE, "Optimizer steps done in this stage."),
    "plinth_epoch": MetricSpec(GAUGE, "Passes over the data done in this stage."),
    "plinth_world_size": MetricSpec(GAUGE, "Training workers."),
    "plinth_loss": MetricSpec(GAUGE, "Total loss over the global batch."),
    "plinth_loss_term": MetricSpec(GAUGE, "A part of the loss, before its weight.", TERM_TAGS),
    "plinth_grad_norm": MetricSpec(GAUGE, "Gradient norm before clipping."),
    "plinth_lr": MetricSpec(GAUGE, "Learning rate."),
    "plinth_samples": MetricSpec(COUNTER, "Samples trained on."),
    "plinth_checkpoint_seconds": MetricSpec(COUNTER, "Seconds that training stood still for checkpoints."),
    "plinth_step_seconds": MetricSpec(GAUGE, "Seconds of the last step.", RANK_TAGS),
    "plinth_data_wait_seconds": MetricSpec(
        GAUGE, "Seconds that the last step waited for its batch.", RANK_TAGS
    ),
    "plinth_compute_seconds": MetricSpec(
        GAUGE, "Seconds that the forward passes of the last step took.", RANK_TAGS
    ),
    "plinth_memory_bytes": MetricSpec(GAUGE, "Most memory that the worker has held.", RANK_TAGS),
}
"""Name given to Ray -> metric."""


class StepNumbers(Protocol):
    """The fields of `plinth.observe.metrics.StepRecord` that are exported."""

    step: int
    epoch: int
    loss: float
    terms: dict[str, float]
    grad_norm: float
    lr: float
    world_size: int
    samples: int
    step_s: float
    data_wait_s: float
    compute_s: float
    checkpoint_s: float
    memory_bytes: int


def exported_name(name: str) -> str:
    """Name of a metric in Prometheus."""
    suffix = COUNTER_SUFFIX if METRICS[name].kind == COUNTER else ""
    return f"{EXPORTED_PREFIX}{name}{suffix}"


class Telemetry:
    """Sends the numbers of each step to Ray's metrics agent; does nothing in a process outside Ray.

    Make one per stage on every rank, call `record` after every step and `close` at the end. Steps shorter
    than `EVERY_S` are told together: Prometheus asks every few seconds, and telling takes half a millisecond.

    Args:
        run: name of the run.
        stage: warmup or main.
        rank: of this process. Rank 0 also sends what is the same on all ranks.
    """

    def __init__(self, run: str, stage: str, rank: int) -> None:
        self._run_tags = {"run": run, "stage": stage}
        self._rank = rank
        self._metrics = _declare() if _in_ray() else {}
        self._untold: StepNumbers | None = None
        self._told_at = -EVERY_S
        self._samples, self._checkpoint_s = 0, 0.0

    def record(self, step: StepNumbers) -> None:
        """Queue the numbers of a step; Ray sends them from another thread."""
        if not self._metrics:
            return
        self._untold = step
        self._samples += step.samples
        self._checkpoint_s += step.checkpoint_s
        if time.monotonic() - self._told_at >= EVERY_S:
            self.close()

    def close(self) -> None:
        """Queue what `record` has kept back."""
        if self._untold is not None:
            self._tell(self._untold)
            self._untold, self._told_at = None, time.monotonic()
            self._samples, self._checkpoint_s = 0, 0.0

    def _tell(self, step: StepNumbers) -> None:
        own = {**self._run_tags, "rank": str(self._rank)}
        self._set("plinth_step_seconds", step.step_s, own)
        self._set("plinth_data_wait_seconds", step.data_wait_s, own)
        self._set("plinth_compute_seconds", step.compute_s, own)
        self._set("plinth_memory_bytes", step.memory_bytes, own)
        if self._rank == 0:
            self._record_global(step)

    def _record_global(self, step: StepNumbers) -> None:
        tags = self._run_tags
        self._set("plinth_step", step.step + 1, tags)
        for name in ("epoch", "world_size", "loss", "grad_norm", "lr"):
            self._set(f"plinth_{name}", getattr(step, name), tags)
        for term, value in step.terms.items():
            self._set("plinth_loss_term", value, {**tags, "term": term})
        self._metrics["plinth_samples"].inc(self._samples, tags)
        if self._checkpoint_s > 0:  # a counter refuses 0
            self._metrics["plinth_checkpoint_seconds"].inc(self._checkpoint_s, tags)

    def _set(self, name: str, value: float, tags: Mapping[str, str]) -> None:
        self._metrics[name].set(float(value), dict(tags))


def _in_ray() -> bool:
    # Without importing Ray: that takes seconds, and a process outside Ray does not need it.
    return "ray" in sys.modules and bool(sys.modules["ray"].is_initialized())


def _declare() -> dict[str, Any]:
    from ray.util import metrics

    kinds = {GAUGE: metrics.Gauge, COUNTER: metrics.Counter}
    return {
        name: kinds[spec.kind](name, description=spec.help, tag_keys=spec.tags)
        for name, spec in METRICS.items()
    }
