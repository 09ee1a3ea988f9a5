"""The AWS cluster files up to the requests that launch machines, against a mock with the real types."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from infra.mockcloud import launches

pytestmark = pytest.mark.slow
CLUSTERS = Path(__file__).parents[3] / "clusters"
GPU_MACHINES = {"aws-h100": ("p5.48xlarge", 32), "aws-a100": ("p4de.24xlarge", 4)}


@pytest.fixture(scope="module", params=sorted(GPU_MACHINES))
def launched(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return request.param, launches(CLUSTERS / f"{request.param}.yaml")


def test_every_node_type_launches_its_instance_type(launched: tuple[str, dict[str, Any]]) -> None:
    name, seen = launched
    machine, cards = GPU_MACHINES[name]
    assert set(seen["machines"]) == {"head", "data", "gpu_spot", "gpu_on_demand"}
    for node, instance in seen["machines"].items():
        expected = machine if node.startswith("gpu") else seen["requests"][node]["InstanceType"]
        assert instance["InstanceType"] == expected
        tags = {tag["Key"]: tag["Value"] for tag in instance["Tags"]}
        assert tags["ray-cluster-name"] == f"poma3d-{name}", "by which the head's role knows its machines"
    for node in ("gpu_spot", "gpu_on_demand"):
        request = seen["requests"][node]
        assert len(request["NetworkInterfaces"]) == cards
        assert "SecurityGroupIds" not in request, "EC2 refuses a group beside interfaces"
        assert "SubnetId" not in request
        assert request["Placement"] == {"GroupName": "poma3d"}


def test_only_spot_node_types_request_the_spot_market(launched: tuple[str, dict[str, Any]]) -> None:
    requests = launched[1]["requests"]
    markets = {node: r.get("InstanceMarketOptions", {}).get("MarketType") for node, r in requests.items()}
    assert markets == {"head": None, "data": None, "gpu_spot": "spot", "gpu_on_demand": None}


def test_only_the_head_is_in_the_public_subnet(launched: tuple[str, dict[str, Any]]) -> None:
    requests = launched[1]["requests"]

    def subnets(request: dict[str, Any]) -> set[str]:
        return {card["SubnetId"] for card in request.get("NetworkInterfaces", [request])}

    (public,) = subnets(requests["head"])
    private = set().union(*(subnets(r) for node, r in requests.items() if node != "head"))
    assert len(private) == 1
    assert public not in private


def test_ray_makes_no_security_group(launched: tuple[str, dict[str, Any]]) -> None:
    """Its own security group would admit SSH from everywhere."""
    assert launched[1]["made"] == []


def test_roles_encrypted_disks_and_metadata_options_are_requested(
    launched: tuple[str, dict[str, Any]],
) -> None:
    for node, request in launched[1]["requests"].items():
        role = "poma3d-head" if node == "head" else "poma3d-node"
        assert request["IamInstanceProfile"] == {"Name": role}
        assert request["MetadataOptions"]["HttpTokens"] == "required"
        assert all(disk["Ebs"]["Encrypted"] for disk in request["BlockDeviceMappings"])
        assert request["ImageId"].startswith("resolve:ssm:/aws/service/deeplearning/")
