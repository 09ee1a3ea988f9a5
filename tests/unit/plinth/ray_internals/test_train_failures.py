"""What Ray Train's errors are taken for."""

from __future__ import annotations

from plinth.ray_internals.train_failures import is_start_timeout, memory_kill, worker_errors


def test_worker_errors_are_unwrapped_and_in_order_of_rank() -> None:
    from ray.train import WorkerGroupError
    from ray.train.v2._internal.util import UserExceptionWithTraceback

    bug, gone = RuntimeError("bug"), OSError("gone")
    error = WorkerGroupError("two of two", {1: gone, 0: UserExceptionWithTraceback(bug, "Traceback ...")})
    assert list(worker_errors(error).items()) == [(0, bug), (1, gone)]
    assert worker_errors(RuntimeError("no worker failed")) == {}


def test_only_a_start_timeout_is_one() -> None:
    from ray.train import ControllerError
    from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError

    assert is_start_timeout(ControllerError(WorkerGroupStartupTimeoutError(2)))
    assert not is_start_timeout(ControllerError(RuntimeError("bug")))


OOM = """1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: ::1) \
was 11.09GB used / 23.54GB limit (0.471190)
Selected to kill: (Actor(0b): job ID=01, task name=A.__init__, required resources={}, pid=29591, \
actual memory used=0.23GB, worker ID=e6)
"""


def test_memory_that_a_killed_worker_held_is_said() -> None:
    from ray.exceptions import OutOfMemoryError
    from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

    killed = WorkerHealthCheckFailedError("poll", failure=OutOfMemoryError(OOM))
    assert memory_kill(killed) == "it held 0.23 GB, its machine 11.09 of 23.54 GB"
    assert memory_kill(OutOfMemoryError("")) == "Ray says no more"
    assert memory_kill(RuntimeError(OOM)) == ""
