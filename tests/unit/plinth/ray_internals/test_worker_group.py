"""Ray Train's group of workers leaves nothing behind."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from plinth.ray_internals.train import worker_group


def test_workers_have_an_environment_of_their_own_only_where_the_user_has_set_something() -> None:
    assert worker_group(None, {})._get_worker_runtime_env({}) == {}
    given = {"RAY_TRAIN_COLLECTIVE_TIMEOUT_S": "5"}
    assert worker_group(None, given)._get_worker_runtime_env({}) == {"env_vars": given}


@pytest.mark.parametrize("is_borrowed", [False, True])
def test_a_group_that_dies_while_it_starts_gives_back_what_it_has_reserved(is_borrowed: bool) -> None:
    """Ray's own `_start` frees nothing once the workers are there (2.60)."""
    freed: list[str] = []

    class DiesLate(worker_group("a group" if is_borrowed else None, {})):  # type: ignore[misc]
        def __init__(self) -> None:
            """Of what a group keeps, only what its end needs."""
            self._worker_group_state = None

        def _start_impl(self, worker_group_state_builder: Any) -> None:
            self._worker_group_state = SimpleNamespace(shutdown=lambda: freed.append("group"))
            raise RuntimeError("a worker died in the setup of its process group")

        def _clear_state(self) -> None:
            self._worker_group_state = None

    group = DiesLate()
    with pytest.raises(RuntimeError, match="a worker died"):
        group._start()
    assert freed == ["group"]
    assert not group.has_started()


class Fails(worker_group(None, {})):  # type: ignore[misc]
    """A group whose workers are there and that cannot go on."""

    def __init__(self, error: Exception) -> None:
        """Of what a group keeps, only what its end needs."""
        self.error, self.freed = error, 0
        self._worker_group_state: Any = SimpleNamespace(shutdown=self.free)
        self._callbacks = [SimpleNamespace(on_worker_group_shutdown=self.fail)]

    def _start_impl(self, worker_group_state_builder: Any) -> None:
        raise self.error

    def _clear_state(self) -> None:
        self._worker_group_state = None

    def free(self) -> None:
        self.freed += 1

    def fail(self) -> Any:
        raise self.error


def test_a_worker_that_the_memory_monitor_killed_ends_no_run() -> None:
    """Ray tries again after `WorkerGroupStartupFailedError`; any other error here is final."""
    from ray.exceptions import OutOfMemoryError
    from ray.train.v2._internal.exceptions import WorkerGroupStartupFailedError

    starting, ending = Fails(OutOfMemoryError("full")), Fails(OutOfMemoryError("full"))
    with pytest.raises(WorkerGroupStartupFailedError, match="full"):
        starting._start()
    ending.shutdown()
    assert (starting.freed, ending.freed) == (1, 1)
    with pytest.raises(ValueError, match="a bug"):
        Fails(ValueError("a bug")).shutdown()
