"""What Ray Train's errors mean, and those of its workers, by their private classes."""

from __future__ import annotations

import re

MEMORY_HELD = re.compile(r"actual memory used=([\d.]+)GB")
MEMORY_USED = re.compile(r"was ([\d.]+)GB used / ([\d.]+)GB")
"""In the message of a worker that Ray's memory monitor has killed."""


def is_start_timeout(error: BaseException) -> bool:
    """Whether Ray Train gave up because the workers did not start in time. The exception is not public."""
    from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError

    return isinstance(getattr(error, "controller_failure", None), WorkerGroupStartupTimeoutError)


def controller_failure(error: BaseException) -> BaseException | None:
    """What went wrong in Ray Train itself rather than in a worker, from a `ray.train.TrainingFailedError`."""
    found = getattr(error, "controller_failure", None)
    return found if isinstance(found, BaseException) else None


def is_lost_worker(error: BaseException) -> bool:
    """Whether a worker's error, as Ray Train's controller has it, says that its process died."""
    from ray.exceptions import RayError

    return isinstance(_of_a_look(error), RayError)


def memory_kill(error: BaseException) -> str:
    """What Ray's memory monitor says of a worker that it killed, as Ray Train's controller has it: how much
    the process held and how full the machine was; empty for any other error."""
    from ray.exceptions import OutOfMemoryError

    cause = _of_a_look(error)
    if not isinstance(cause, OutOfMemoryError):
        return ""
    held, full = MEMORY_HELD.search(str(cause)), MEMORY_USED.search(str(cause))
    parts = [f"it held {held[1]} GB"] if held else []
    parts += [f"its machine {full[1]} of {full[2]} GB"] if full else []
    return ", ".join(parts) or "Ray says no more"


def worker_errors(error: BaseException) -> dict[int, BaseException]:
    """Rank -> what its worker raised, unwrapped, from a `ray.train.TrainingFailedError`."""
    from ray.train.v2._internal.util import UserExceptionWithTraceback

    def unwrapped(failure: BaseException) -> BaseException:
        failure = _of_a_look(failure)
        return failure._base_exc if isinstance(failure, UserExceptionWithTraceback) else failure

    failures = getattr(error, "worker_failures", {})
    return {rank: unwrapped(failure) for rank, failure in sorted(failures.items())}


def _of_a_look(error: BaseException) -> BaseException:
    """What a look of Ray Train's controller at a worker failed by; any other error itself."""
    from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

    return error.health_check_failure if isinstance(error, WorkerHealthCheckFailedError) else error
