"""A command and something else in turns."""

from __future__ import annotations

import subprocess
import sys
import time

import psutil

from benchmarks.step.turns import stopped

WORK = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "while True: pass"])
print(child.pid, flush=True)
while True: time.sleep(0.01)
"""


def test_a_command_and_its_children_have_no_time_while_they_are_stopped() -> None:
    process = subprocess.Popen([sys.executable, "-c", WORK], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = psutil.Process(int(process.stdout.readline()))
    try:
        with stopped(process.pid):
            before = child.cpu_times()
            assert child.status() == psutil.STATUS_STOPPED
            time.sleep(0.2)
            assert child.cpu_times() == before
        time.sleep(0.2)
        assert child.cpu_times() != before
        assert process.poll() is None
    finally:
        child.kill()
        process.kill()
        process.wait()
