"""The clock of a command's CPU seconds."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from benchmarks.step.cpu_clock import CpuClock

WORK = """
import subprocess, sys, time
burn = "import time\\nwhile time.process_time() < 0.4: pass\\ntime.sleep(0.5)"
subprocess.run([sys.executable, "-c", burn])
time.sleep(0.5)
"""


def test_it_counts_children_and_what_has_ended_and_no_second_twice() -> None:
    began = time.time()
    process = subprocess.Popen([sys.executable, "-c", WORK])
    clock = CpuClock(process.pid, 0.05, lambda pid, *_: "command" if pid == process.pid else "child")
    assert process.wait() == 0
    clock.stop()
    ended = time.time()
    found = clock.between(began, ended)
    assert found.keys() == {"command", "child"}
    assert found["child"] >= 0.3, "it stays counted after its end"  # 0.4, in the ticks of the kernel
    middle = (began + ended) / 2
    parts = [clock.between(began, middle), clock.between(middle, ended)]
    assert sum(part.get("child", 0.0) for part in parts) == pytest.approx(found["child"])
