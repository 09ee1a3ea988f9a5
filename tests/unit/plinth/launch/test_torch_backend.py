"""The process group that Ray Train makes: its time-out, its variables, and workers that cannot leave it."""

from __future__ import annotations

import logging
import os
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import torch.distributed as dist

from plinth.engine.process import GROUP_TIMEOUT
from plinth.launch import torch_backend
from plinth.launch.torch_backend import TorchBackend
from plinth.observe.config import GuardConfig

ASYNC, BLOCKING = "TORCH_NCCL_ASYNC_ERROR_HANDLING", "TORCH_NCCL_BLOCKING_WAIT"
NAMES = ("MASTER_ADDR", "MASTER_PORT", ASYNC, BLOCKING)


@pytest.fixture
def joined(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What torch is asked for."""
    asked: dict[str, Any] = {}
    for name in NAMES:
        monkeypatch.setenv(name, "")  # so that what is set is taken back
        monkeypatch.delenv(name)
    monkeypatch.setattr(
        dist, "init_process_group", lambda library, **named: asked.update(named, library=library)
    )
    return asked


@pytest.mark.parametrize("library", ["gloo", "nccl"])
def test_ranks_wait_longer_than_it_takes_to_find_one_that_hangs(joined: dict[str, Any], library: str) -> None:
    torch_backend._join(library, "10.0.0.1", 2345)
    assert joined == {"library": library, "timeout": GROUP_TIMEOUT}
    assert GROUP_TIMEOUT.total_seconds() >= 2 * GuardConfig().hang_after_s
    assert (os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]) == ("10.0.0.1", "2345")
    assert os.environ.get(ASYNC) == ("1" if library == "nccl" else None)


@pytest.mark.parametrize(("name", "value"), [(ASYNC, "3"), (BLOCKING, "1")])
def test_the_user_s_way_with_errors_of_nccl_stays(
    joined: dict[str, Any], monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    torch_backend._join("nccl", "10.0.0.1", 2345)
    assert os.environ.get(ASYNC) == (value if name == ASYNC else None)
    assert os.environ[name] == value


def test_workers_that_cannot_leave_end_no_run(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    backend = TorchBackend("gloo").backend_cls()
    group: Any = SimpleNamespace(execute_async=lambda function: [function.__name__])
    for error in (ray.exceptions.RayActorError(), ray.exceptions.GetTimeoutError("too long")):

        def fail(refs: list[str], timeout: float, error: Exception = error) -> None:
            assert refs == ["_leave"]
            raise error

        monkeypatch.setattr(ray, "get", fail)
        with caplog.at_level(logging.WARNING, logger=torch_backend.__name__):
            backend.on_shutdown(group, TorchBackend("gloo"))
    assert [record.message for record in caplog.records] == [
        "workers did not leave their group in 30 s: they are ended"
    ]
