"""A whole stage of training on a real S3 server that goes away in the middle and comes back."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from plinth.checkpoint import save_load as checkpoint
from plinth.checkpoint import store
from plinth.checkpoint.config import CheckpointConfig
from plinth.engine import process
from plinth.observe.step_lines import read_lines
from plinth.storage import Storage
from plinth.train import attempt
from plinth.train.control import Control
from plinth.train.loop import run_stage
from plinth.train.resolve import ResolvedStage
from tests.helpers.fault_proxy import Fault, FaultProxy, Kind
from tests.helpers.ranks import run_ranks
from tests.helpers.toy.run import build_slow, toy_run
from tests.integration.conftest import S3Server

pytestmark = pytest.mark.slow

STEPS, EVERY = 20, 4
PATIENCE_S = 120.0


def train(run: ResolvedStage) -> dict[str, Any]:
    """The stage, alone."""
    started, control = process.start(threads=1), Control()
    with attempt.begin(started, run.storage.child("logs-of-test"), run.run_id, control, 60.0) as this:
        return run_stage(run, started, control, this).summary


def test_training_continues_through_a_storage_outage_and_uploads_later(
    s3_server: S3Server, tmp_path: Path
) -> None:
    checkpoints = CheckpointConfig(every_steps=EVERY, keep_last=0, keep_waiting=STEPS, away_retry_s=0.5)
    straight = toy_run(tmp_path / "straight", steps=STEPS, checkpoint=checkpoints)
    run_ranks(1, train, straight)

    direct = s3_server.bucket().child("outage/toy")
    with FaultProxy(s3_server.store.endpoint_url) as proxy:
        options = replace(
            direct.options, endpoint_url=proxy.url, read_timeout_s=1.0, retries=1, backoff_s=0.01
        )
        run = toy_run(
            tmp_path / "outage", steps=STEPS, checkpoint=checkpoints, build_stage=build_slow,
            storage=Storage(direct.protocol, direct.root, options),
        )  # fmt: skip
        away = threading.Thread(target=take_away, args=(proxy, direct.child("checkpoints")))
        away.start()
        run_ranks(1, train, run)
        away.join()
        refused = [met for met in proxy.met if met[0] is Kind.reset]
    assert refused, "the storage was never asked while it was away"

    kept = store.list_checkpoints(direct.child("checkpoints"))
    assert [info.step for info in kept] == list(range(EVERY, STEPS + 1, EVERY))
    assert all(info.is_committed for info in kept)
    for step in (EVERY * 2, STEPS):
        ours = checkpoint.read_full(direct.child("checkpoints"), tmp_path / "scratch", step)
        theirs = checkpoint.read_full(straight.checkpoints, tmp_path / "scratch", step)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    same = ("step", "digest", "loss", "grad_norm")
    lines, expected = read_lines(direct), read_lines(straight.storage)
    assert [[line[key] for key in same] for line in lines] == [[ln[key] for key in same] for ln in expected]


def take_away(proxy: FaultProxy, checkpoints: Storage) -> None:
    """After the first commit every connection is reset, until two more checkpoints must wait."""
    until = time.monotonic() + PATIENCE_S
    while store.latest(checkpoints) is None and time.monotonic() < until:
        time.sleep(0.05)
    proxy.inject(Fault(Kind.reset, count=None))
    time.sleep(0.25 * 2 * EVERY + 1)  # steps of `build_slow`
    proxy.stop_faults()
