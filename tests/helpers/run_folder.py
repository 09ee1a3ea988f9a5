"""A run's folder as training leaves it, made without training."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from plinth.checkpoint.store import commit
from plinth.observe import incidents
from plinth.observe.failures import VANISHED, Failure
from plinth.observe.incidents import Incident
from plinth.observe.ledger import FAILED, FINISHED, RUNNING, Mark, Record
from plinth.storage import Storage

NOW = 1_800_000_000.0
LOCK = {"holder": "ann on node-1, process 11", "token": "t", "beat": 7}
TOTAL = {"warmup": 40, "main": 120}
GLOO = "[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:31337"


def killed_run(folder: Path, step: int = 70, beat: float = NOW - 3, outcome: str = RUNNING) -> Storage:
    """Warm-up done, main stage at `step`; one kill in the main stage, one incident; a lock while it runs."""
    storage = Storage.from_uri(folder / "rooms")
    job = {"kind": "pretrain", "name": "rooms", "warmup": {"steps": 40}, "main": {"steps": 120}}
    storage.write("config.yaml", yaml.safe_dump(job).encode())
    checkpoints(storage, "warmup", [20, 40])
    checkpoints(storage, "main", [20, 40, 60] + ([120] if step == TOTAL["main"] else []))
    metrics(storage, "warmup", range(40))
    metrics(storage, "main", range(step))
    begin = NOW - 3600
    warmup = [Mark(0), Mark(40, 700, 90, 12)]
    before = [Mark(0), Mark(40, 800, 60, 10), Mark(48, 960, 80, 10)]
    after = [Mark(40), Mark(60, 700, 20, 9), Mark(step, 1100, 40, 9)]
    records(storage, [
        Record("a1", "warmup", 2, 2, begin, begin + 900, 10, 2.5, FINISHED, 40.0, marks=warmup),
        Record("a1", "main", 2, 2, begin + 900, begin + 2000, 10, 2.5, FAILED, 15.0, marks=before),
        Record("a2", "main", 1, 1, begin + 2040, beat, 10, 2.5, outcome, 30.0, 25.0, 2, marks=after),
    ])  # fmt: skip
    samples = [f"room-{i}" for i in range(6)]
    what = "The loss is not finite"
    bad = Incident(what, 51, 1, 3, False, samples, [], action="rolled back", time=NOW - 900)
    incidents.write(storage.child("main"), bad)
    failures(storage, [
        Failure("a1", 0, "node-1", 11, NOW - 1601, "RuntimeError", GLOO, "", 48, ["room-7"], True),
        Failure("a1", 1, "node-2", 12, NOW - 1600, VANISHED, step=48, sample_ids=["room-8", "room-<9>"]),
    ])  # fmt: skip
    for rank in (0, 1):
        text = f"2026-01-01 00:00:0{rank},000 INFO plinth: rank {rank}\nmain 1/120\nmain 48/120\n"
        storage.write(f"logs/a1-rank{rank}.log", text.encode())
    if outcome == RUNNING:
        storage.write("LOCK.json", json.dumps(LOCK).encode())
    return storage


def checkpoints(storage: Storage, stage: str, steps: Sequence[int]) -> None:
    """Committed ones, empty."""
    for step in steps:
        state = {"step": step, "total_steps": TOTAL[stage]}
        commit(storage.child(f"{stage}/checkpoints"), step, {}, state, "token")


def metrics(storage: Storage, stage: str, steps: range) -> None:
    """Lines as `StepRecord` has them; one loss is missing, as after a step that was not finite."""
    lines: list[dict[str, Any]] = [
        {
            "step": s, "epoch": s // 30, "step_in_epoch": s % 30, "loss": 2 + 3 * math.exp(-s / 30),
            "terms": {"view": 1 + 2 * math.exp(-s / 30), "scene": 1 + math.exp(-s / 20)},
            "logs": {"target_feature_std": 0.5 + 0.1 * math.sin(s / 9), "effective_rank": 20 + s / 10},
            "grad_norm": 1 + math.sin(s / 5) ** 2, "lr": 1e-3, "digest": f"{s:04x}", "world_size": 2,
            "samples": 48, "step_s": 20 + math.sin(s), "data_wait_s": 1.5, "checkpoint_s": 0.0,
            "memory_bytes": 10, "time": NOW - 3600 + 20 * s,
        }
        for s in steps
    ]  # fmt: skip
    if len(lines) > 10:
        lines[10]["loss"] = None
    storage.write(f"{stage}/metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode())


def records(storage: Storage, found: Sequence[Record]) -> None:
    """The ledger."""
    for record in found:
        key = f"ledger/{record.attempt}-{record.stage}.json"
        storage.write(key, json.dumps(asdict(record)).encode())


def failures(storage: Storage, found: Sequence[Failure]) -> None:
    """As ranks and `salvage` write them."""
    for failure in found:
        key = f"logs/{failure.attempt}-rank{failure.rank}.failure.json"
        storage.write(key, json.dumps(asdict(failure)).encode())
