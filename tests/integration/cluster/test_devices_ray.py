"""Which device the models of a process use, on a Ray that has been told of two GPUs: it gives them out by
number, whatever the machine has."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
import ray

from jobs.common.cluster import map_tasks
from jobs.common.devices import own_device
from plinth.errors import ConfigError

pytestmark = pytest.mark.slow


def device(_: int) -> str:
    """Of this process, were CUDA there."""
    import torch

    torch.cuda.is_available = lambda: True
    return own_device()


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers do not know the tests' folder
    ray.init(address="local", num_cpus=1, num_gpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def test_task_uses_only_the_gpu_it_claimed(cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert map_tasks(device, [0], 1, {"CPU": 1.0}, "cpu", "tasks") == ["cpu"]
    assert map_tasks(device, [0], 1, {"CPU": 1.0, "GPU": 1.0}, "gpu", "tasks") == ["cuda"]
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert own_device() == "cuda", "a driver's process is the user's own"


def test_device_without_cuda_is_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert own_device() == "cpu"


def test_more_gpus_than_the_cluster_has_is_refused(cluster: None) -> None:
    with pytest.raises(ConfigError, match="These tasks each need 3 GPU; there are 2"):
        map_tasks(device, [0], 1, {"CPU": 1.0, "GPU": 3.0}, "gpu", "tasks")
