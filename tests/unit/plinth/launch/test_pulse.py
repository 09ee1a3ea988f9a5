"""What a rank says of itself."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest
import torch.distributed.distributed_c10d as collectives

from plinth.launch.coordinator import kill
from plinth.launch.pulse import Sender, born_at


def test_it_says_what_the_thread_does_and_where() -> None:
    sender = Sender(3, "node")
    sender.enters("takes step", 5, 60.0)
    pulses = []
    thread = threading.Thread(target=lambda: pulses.append(sender.pulse()))
    thread.start()
    thread.join()
    (pulse,) = pulses
    assert (pulse.rank, pulse.pid, pulse.doing, pulse.step) == (3, os.getpid(), "takes step", 5)
    assert pulse.born == born_at(os.getpid())
    assert pulse.for_s < 30
    assert " in " in pulse.where
    assert not pulse.is_in_collective
    assert not pulse.stack


@pytest.mark.parametrize("module", [collectives.__name__, "deepspeed.runtime.zero.partition_parameters"])
def test_a_stack_comes_once_the_limit_is_over_and_collectives_are_seen(module: str) -> None:
    sender = Sender(0, "node")
    sender.enters("takes step", 5, 0.0)
    found = []

    def look() -> None:
        time.sleep(0.01)
        found.append(sender.pulse())

    # A function that looks like torch's own, with a thread that looks at it.
    code = "def all_reduce(thread):\n    thread.start()\n    thread.join()\n"
    names: dict[str, object] = {"__name__": module}
    exec(code, names)
    names["all_reduce"](threading.Thread(target=look))  # type: ignore[operator]
    (pulse,) = found
    assert pulse.is_in_collective
    assert "in all_reduce" in pulse.stack


def test_only_the_process_that_was_meant_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        born = born_at(process.pid)
        assert born is not None
        assert not kill(process.pid, born + 1)
        assert process.poll() is None
        assert kill(process.pid, born)
        assert process.wait() < 0
    assert born_at(process.pid) is None
