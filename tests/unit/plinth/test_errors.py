"""The error of a job is found in what wraps it."""

from __future__ import annotations

from plinth.errors import DataError, cause_of


def test_the_cause_of_a_failed_task_is_found() -> None:
    from ray.exceptions import RayTaskError

    mistake = DataError("a shard is damaged.", "make it again.")
    task = RayTaskError("read", "Traceback ...", mistake).as_instanceof_cause()
    wrapped = RuntimeError("a task failed")
    wrapped.__cause__ = task
    assert cause_of(wrapped) is mistake
    assert cause_of(mistake) is mistake
    other = ValueError("no error of ours")
    assert cause_of(other) is other
