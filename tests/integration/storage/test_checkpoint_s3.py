"""A checkpoint written by two ranks to a real S3 server, damaged, and read by one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from plinth.checkpoint import save_load as checkpoint
from plinth.checkpoint import store
from plinth.engine import process
from plinth.storage import Storage
from tests.helpers.ranks import run_ranks
from tests.helpers.runs import Case, full_state, global_batches, local_rows, save_now, toy_engine
from tests.integration.conftest import ACCESS_KEY_ENV, SECRET_KEY_ENV, S3Server

pytestmark = pytest.mark.slow


def save_twice(storage: Storage, scratch: Path, keys: dict[str, str]) -> dict[str, torch.Tensor]:
    """On all ranks: checkpoints after one and two steps; the state after the first."""
    os.environ.update(keys)
    proc = process.start(threads=1)
    engine = toy_engine(Case(3), proc)
    states = []
    for batch in global_batches(2):
        engine.step(local_rows(batch, proc.world))
        save_now(engine, storage, scratch, {}, keep_last=2)
        states.append(full_state(engine))
    engine.close()
    return states[0]


def load_one(storage: Storage, scratch: Path, keys: dict[str, str]) -> dict[str, torch.Tensor]:
    """On all ranks: the state of the newest checkpoint that is whole."""
    os.environ.update(keys)
    proc = process.start(threads=1)
    engine = toy_engine(Case(2), proc)
    assert checkpoint.load(engine, storage, scratch) is not None
    state = full_state(engine)
    engine.close()
    return state


def test_load_skips_a_damaged_checkpoint_on_s3(s3_server: S3Server, tmp_path: Path) -> None:
    storage = s3_server.bucket().child("run/main/checkpoints")
    # The ranks' processes may be older than the server: they get its keys here.
    keys = {name: os.environ[name] for name in (ACCESS_KEY_ENV, SECRET_KEY_ENV)}
    expected = run_ranks(2, save_twice, storage, tmp_path, keys)[0]
    assert [info.step for info in store.list_checkpoints(storage)] == [1, 2]
    newest = storage.child("step-00000002")
    name = next(key for key, _ in newest.list() if key.endswith(".safetensors"))
    newest.write(name, newest.read(name)[:-1] + b"\x00")
    found = run_ranks(1, load_one, storage, tmp_path, keys)[0]
    for key, values in expected.items():
        assert torch.equal(found[key], values), key
