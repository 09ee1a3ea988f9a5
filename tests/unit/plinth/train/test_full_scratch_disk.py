"""Training while the disk for files on their way is really full."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from plinth.checkpoint import store
from plinth.engine.process import Process
from plinth.errors import StorageError
from plinth.observe.step_lines import read_lines
from plinth.storage import Storage, scratch
from plinth.train.attempt import Attempt
from plinth.train.control import Control
from plinth.train.loop import run_stage
from plinth.world import World
from tests.helpers import full_disk
from tests.helpers.toy.full_disk import EVERY, FULL_FROM, FULL_UNTIL, STEPS
from tests.helpers.toy.run import toy_run


@pytest.mark.slow
def test_training_goes_on_while_the_disk_is_full(tmp_path: Path) -> None:
    told = full_disk.run(tmp_path, "tests.helpers.toy.full_disk")
    if told is None:
        pytest.skip("this machine mounts nothing for its users")
    found = [(line[0], int(line[1])) for line in told if line[0] in ("checkpoint", "last")]
    assert found[-1] == ("last", STEPS - 1)
    committed = {step // EVERY for kind, step in found if kind == "checkpoint"}
    assert committed >= {1, *range(FULL_UNTIL + 2, STEPS // EVERY + 1)}
    assert not committed & set(range(FULL_FROM + 1, FULL_UNTIL)), "those of a full disk do not count"
    lines = read_lines(Storage.from_uri(tmp_path / "big" / "run" / "toy"))
    assert [line["step"] for line in lines] == list(range(STEPS)), "and no line is lost"


def test_no_room_to_look_at_the_last_checkpoint_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = toy_run(tmp_path)
    stage.checkpoints.write(f"{store.folder_name(stage.total_steps)}/{store.COMMIT_KEY}", b"{}")
    monkeypatch.setattr(scratch, "claim", lambda folder: None)  # as where the disk is full: no folder is made
    alone, attempt = Process(World(0, 1), torch.device("cpu"), 1, ""), object.__new__(Attempt)
    with pytest.raises(
        StorageError, match=re.escape(f"cannot be looked at in {stage.scratch}: No such file")
    ):
        run_stage(stage, alone, Control(), attempt)
