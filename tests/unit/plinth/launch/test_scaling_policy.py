"""The elastic policy's choice of a size; resizing itself is in tests/integration/train/test_elastic_ray."""

from __future__ import annotations

from typing import Any

import pytest

from plinth.launch import scaling_policy
from plinth.launch.scaling_policy import LadderPolicy


@pytest.fixture
def policy(monkeypatch: pytest.MonkeyPatch) -> LadderPolicy:
    """Sizes 1, 2 and 4 on nodes a and b; c is gone, d is draining."""
    from ray.train import ScalingConfig

    nodes = [{"NodeID": name, "Alive": name != "c"} for name in "abcd"]
    monkeypatch.setattr(scaling_policy.ray, "nodes", lambda: nodes)
    monkeypatch.setattr(scaling_policy, "draining_nodes", lambda: {"d": 0})
    config = ScalingConfig(num_workers=(1, 4), resources_per_worker={"CPU": 1})
    return LadderPolicy(config, [1, 2, 4], None)


@pytest.mark.parametrize(
    ("cpus", "size"),
    [
        ({"a": 3}, 2),
        ({"a": 2, "b": 2}, 4),
        ({"a": 9}, 4),
        ({"a": 1, "c": 1}, 1),
        ({"a": 2, "d": 2}, 2),
        ({"c": 4}, 0),
    ],
)
def test_largest_size_that_fits_on_nodes_that_stay(
    policy: LadderPolicy, cpus: dict[str, float], size: int
) -> None:
    reserved: Any = {node: {"CPU": float(count)} for node, count in cpus.items()}
    assert policy.count_workers(reserved) == size
    assert policy._count_possible_workers(reserved) == size, "what Ray's own policy calls"


def test_only_nodes_with_the_label_count(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.train import ScalingConfig

    roles = {"a": "train", "b": "data", "c": "train"}
    nodes = [
        {"NodeID": name, "Alive": True, "Labels": {"poma-role": role}, "Resources": {"CPU": 1.0}}
        for name, role in roles.items()
    ]
    monkeypatch.setattr(scaling_policy.ray, "nodes", lambda: nodes)
    monkeypatch.setattr(scaling_policy, "draining_nodes", dict)
    config = ScalingConfig(num_workers=(1, 4), resources_per_worker={"CPU": 1})
    reserved: Any = {name: {"CPU": 1.0} for name in "abc"}
    assert LadderPolicy(config, [1, 2, 3], None, "poma-role=train").count_workers(reserved) == 2
    elsewhere: Any = {"b": {"CPU": 3.0}}
    assert LadderPolicy(config, [1, 2, 3], None, "poma-role=train").count_workers(elsewhere) == 2
    assert LadderPolicy(config, [1, 2, 3], None).count_workers(reserved) == 3


def test_fractions_of_a_cpu_are_counted_to_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.train import ScalingConfig

    monkeypatch.setattr(scaling_policy.ray, "nodes", lambda: [{"NodeID": "a", "Alive": True}])
    monkeypatch.setattr(scaling_policy, "draining_nodes", dict)
    config = ScalingConfig(num_workers=(1, 5), resources_per_worker={"CPU": 0.2})
    reserved: Any = {"a": {"CPU": 1.0}}
    assert LadderPolicy(config, [1, 5], None).count_workers(reserved) == 5
