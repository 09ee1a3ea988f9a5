"""Joining a Ray cluster: one that is not there is one line, at once."""

from __future__ import annotations

import pytest

from jobs.common.cluster import free_port, ray_cluster
from jobs.common.ray_config import RayConfig
from plinth.errors import ConfigError


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_cluster_that_is_not_there_is_named(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    address = f"{scheme}127.0.0.1:{free_port()}"
    with (
        pytest.raises(ConfigError, match=f"^ray.address {address}: no Ray cluster"),
        ray_cluster(RayConfig(address=address), 1),
    ):
        pass
    monkeypatch.setenv("RAY_ADDRESS", address)
    with (
        pytest.raises(ConfigError, match=f"^RAY_ADDRESS {address}: .*unset RAY_ADDRESS"),
        ray_cluster(RayConfig(), 1),
    ):
        pass


def test_a_host_that_is_not_there_is_named() -> None:
    with (
        pytest.raises(ConfigError, match=r"nowhere\.invalid:6379: no Ray cluster"),
        ray_cluster(RayConfig(address="nowhere.invalid:6379"), 1),
    ):
        pass
