"""What the first steps of a stage cost: a table of parts, then a trace of a few steps more.

The two are taken one after the other, because a trace slows down what it records. Rank 0 alone is measured;
what it waits for the others is a part of its own.

    skipped steps -> measured steps: seconds by part -> traced steps: torch.profiler -> two files in storage
"""

from __future__ import annotations

import gzip
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from plinth.engine.engine import Engine
from plinth.observe.metrics import StepRecord
from plinth.train.parts import REST, Parts, watch_engine
from plinth.train.resolve import ProfileSpec

DATA, CHECKPOINTS, METRICS = "waiting for data", "checkpoints", "metrics"
TRACE, NUMBERS = ".trace.json.gz", ".json"
MEMORY_TRACK = "allocated bytes"
OPERATORS = 12
"""Operators with the most time of their own that are named."""
MEMORY_POINTS = 2000
"""Points of the memory timeline at most; the highest of each stretch is kept."""
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
"""Calls by which the host waits for the device."""


class StageProfile:
    """Rank 0's profile of a stage.

    Args:
        name: of the stage; the files have it.
    """

    def __init__(self, spec: ProfileSpec, name: str, device: torch.device) -> None:
        self._spec, self._name, self._device = spec, name, device
        self._watched = ExitStack()
        self._parts = Parts(torch.cuda.synchronize if device.type == "cuda" else None)
        self._profiler: Any = None
        self._numbers: dict[str, Any] = {}
        self._records: list[StepRecord] = []
        self._steps, self._began = 0, 0.0

    def begin(self, engine: Engine) -> None:
        """Training begins."""
        self.close()
        self._steps = 0
        self._watched.enter_context(watch_engine(engine, self._parts))
        if self._spec.skipped == 0:
            self._begin_measuring()

    def writing(self) -> AbstractContextManager[None]:
        """Around what the platform writes down after a step."""
        return self._parts.part(METRICS)

    def saving(self) -> AbstractContextManager[None]:
        """Around the begin of a checkpoint: all of it is one part, its collectives too."""
        return self._parts.part(CHECKPOINTS, whole=True)

    def step(self, record: StepRecord) -> None:
        """A step was taken and written down."""
        spec, self._steps = self._spec, self._steps + 1
        ends = (spec.skipped, spec.skipped + spec.measured, spec.skipped + spec.measured + spec.traced)
        if ends[0] < self._steps <= ends[1]:
            self._records.append(record)
        if self._steps == ends[0]:
            self._begin_measuring()
        elif self._steps == ends[1]:
            self._end_measuring()
        elif self._steps == ends[2]:
            self._end_trace()

    def close(self) -> None:
        """Leave the engine as it was."""
        if self._profiler is not None:
            self._profiler.stop()
            self._profiler = None
        self._watched.close()

    def _begin_measuring(self) -> None:
        self._parts.take(1)
        self._records = []
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        self._began = time.perf_counter()

    def _end_measuring(self) -> None:
        steps = self._spec.measured
        step_ms = 1000 * (time.perf_counter() - self._began) / steps
        parts = self._parts.take(steps)
        # A part that the loop has measured already: the clocks here see only what is inside the engine.
        parts[DATA] = 1000 * sum(r.data_wait_s for r in self._records) / steps
        checkpoint_ms = steps * parts.setdefault(CHECKPOINTS, 0.0)
        saved = sum(r.checkpoint_s > 0 for r in self._records)
        parts[REST] = step_ms - sum(ms for name, ms in parts.items() if name != REST)
        last = self._records[-1]
        self._numbers = {
            "stage": self._name,
            "device": torch.cuda.get_device_name() if self._device.type == "cuda" else "CPU",
            "steps": steps,
            "step_ms": step_ms,
            "samples": last.samples,
            "world_size": last.world_size,
            "peak_memory_bytes": last.memory_bytes,
            "parts_ms": parts,
            "checkpoint_ms": checkpoint_ms / max(1, saved),
        }
        self._parts.is_labelled, self._parts.wait = True, None
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it tells of each start and stop
        activities = [ProfilerActivity.CPU]
        if self._device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        self._profiler = profile(activities=activities, profile_memory=True)
        self._profiler.start()

    def _end_trace(self) -> None:
        profiler, self._profiler = self._profiler, None
        profiler.stop()
        self._watched.close()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "trace.json"
            profiler.export_chrome_trace(str(path))
            trace = json.loads(path.read_text(encoding="utf-8", errors="replace"))
        timeline = memory_timeline(trace["traceEvents"], self._device.type)
        trace["traceEvents"] += memory_track(trace["traceEvents"], timeline)
        self._numbers |= {
            "traced_steps": self._spec.traced,
            "operators": _operators(profiler, self._device.type),
            "host_waits": host_waits(trace["traceEvents"]),
            "memory": thinned(timeline, MEMORY_POINTS),
        }
        storage = self._spec.storage
        storage.write(self._name + TRACE, gzip.compress(json.dumps(trace).encode()))
        storage.write(self._name + NUMBERS, json.dumps(self._numbers, indent=1).encode())


def memory_timeline(events: Sequence[Mapping[str, Any]], device: str) -> list[tuple[float, int]]:
    """(microseconds of the trace, bytes that are allocated on the device) at each change.

    Args:
        events: of a Chrome trace that torch.profiler wrote with `profile_memory`.
        device: cpu or cuda.
    """
    kind = 1 if device == "cuda" else 0  # c10::DeviceType
    found = [
        (float(e["ts"]), int(e["args"]["Total Allocated"]))
        for e in events
        if e.get("name") == "[memory]" and int(e["args"].get("Device Type", -1)) == kind
    ]
    return sorted(found)


def memory_track(
    events: Sequence[Mapping[str, Any]], timeline: Sequence[tuple[float, int]]
) -> list[dict[str, Any]]:
    """The timeline as counter events, which Perfetto draws as a curve."""
    pid = next((e["pid"] for e in events if e.get("name") == "[memory]"), 0)
    return [
        {"ph": "C", "name": MEMORY_TRACK, "pid": pid, "ts": ts, "args": {"bytes": size}}
        for ts, size in timeline
    ]


def thinned(timeline: Sequence[tuple[float, int]], most: int) -> list[list[float]]:
    """At most `most` points [milliseconds since the first, bytes]: the highest of each stretch."""
    stretch = max(1, -(-len(timeline) // most))
    chosen = (
        max(timeline[i : i + stretch], key=lambda point: point[1]) for i in range(0, len(timeline), stretch)
    )
    return [[(ts - timeline[0][0]) / 1000, size] for ts, size in chosen]


def host_waits(events: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How often the host called each function that waits for the device; empty on a CPU."""
    return dict(Counter(e["name"] for e in events if e.get("name") in WAITS))


def _operators(profiler: Any, device: str) -> list[dict[str, Any]]:
    """The operators with the most time of their own: name, calls, milliseconds of all traced steps."""
    own = "self_device_time_total" if device == "cuda" else "self_cpu_time_total"
    found = [o for o in profiler.key_averages() if o.key.startswith("aten::") or device == "cuda"]
    found.sort(key=lambda o: -getattr(o, own))
    return [{"name": o.key, "calls": o.count, "ms": getattr(o, own) / 1000} for o in found[:OPERATORS]]
