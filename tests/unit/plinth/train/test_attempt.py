"""An attempt: the logs of processes that are gone reach the run that wrote them, and no other."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from plinth.engine.process import Process
from plinth.observe.failures import read_failures, record_lost
from plinth.storage import Storage
from plinth.train import attempt
from plinth.train.control import Control
from plinth.world import World

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[4]
ALONE = Process(World(0, 1), torch.device("cpu"), threads=1, host="here")
DIES = """
import os, sys
from plinth.storage import Storage
from plinth.engine import process
from plinth.train import attempt
from plinth.train.control import Control
with attempt.begin(process.start(threads=1), Storage.from_uri(sys.argv[1]), sys.argv[2], Control(), 60.0):
    os.kill(os.getpid(), 9)
"""


@pytest.fixture
def died(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    """The folder of the run `old`, whose only process was killed; its logs are still local."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "local"))
    (tmp_path / "local").mkdir()
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "platform")}
    storage = Storage.from_uri(tmp_path / "run")
    ended = subprocess.run([sys.executable, "-c", DIES, storage.uri, "old"], env=environment, check=False)
    assert ended.returncode == -9
    monkeypatch.setattr("tempfile.tempdir", None)  # it looks at TMPDIR once
    return storage


def test_a_new_run_in_an_old_place_hears_nothing_of_the_old_one(died: Storage) -> None:
    with attempt.begin(ALONE, died, "new", Control(), 60.0):
        assert not read_failures(died)
    with attempt.begin(ALONE, died, "old", Control(), 60.0):
        (failure,) = read_failures(died)
    assert failure.error == "vanished"


def test_the_next_attempt_tells_who_was_lost(died: Storage, caplog: pytest.LogCaptureFixture) -> None:
    record_lost(died, {0: ""})
    time.sleep(1.0)  # attempts begin seconds apart, and are told apart by that
    with attempt.begin(ALONE, died, "old", Control(), 60.0):
        (failure,) = read_failures(died)
    assert failure.is_first_lost
    (said,) = [r.getMessage() for r in caplog.records if "the attempt before" in r.getMessage()]
    assert said.startswith("the attempt before failed: rank 0")
    assert "\n" not in said
