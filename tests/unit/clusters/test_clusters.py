"""Every cluster file passes Ray's own checks and keeps the promises of clusters/README.md."""

from __future__ import annotations

import copy
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
CLUSTERS = ROOT / "clusters"
PRICES = "prices.yaml"
FILES = sorted(p for p in CLUSTERS.glob("*.yaml") if p.name != PRICES)
EFA_CARDS = {"p5.48xlarge": 32, "p4de.24xlarge": 4}
LOOPBACK = "127.0.0.1"


def load(path: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(path.read_text()))


def node_types(path: Path) -> dict[str, Any]:
    return dict(load(path).get("available_node_types", {}))


def start_commands(cluster: dict[str, Any]) -> list[str]:
    lines = cluster["head_start_ray_commands"] + cluster["worker_start_ray_commands"]
    return [line for line in lines if "ray start" in line]


def start_options(command: str) -> dict[str, Any]:
    """What `ray start` understands of a command; a misspelt option or a value of another type raises."""
    from ray.scripts.scripts import start

    words = shlex.split(command)
    begin = words.index("start") + 1
    end = next(
        (i for i, word in enumerate(words) if i > begin and word in (";", "&&", "||", "|")), len(words)
    )
    return dict(start.make_context("ray start", words[begin:end]).params)


def machine(node_config: dict[str, Any]) -> str:
    return str(node_config.get("InstanceType") or node_config.get("machineType"))


by_file = pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
clouds = pytest.mark.parametrize(
    "path", [p for p in FILES if p.stem[:3] in ("aws", "gcp")], ids=lambda p: p.stem
)
aws = pytest.mark.parametrize("path", [p for p in FILES if p.stem.startswith("aws")], ids=lambda p: p.stem)


def test_the_readme_and_the_folder_agree() -> None:
    assert len(FILES) == 6
    text = (CLUSTERS / "README.md").read_text()
    assert not [path.name for path in FILES if f"`{path.name}`" not in text]


@by_file
def test_cluster_file_passes_rays_schema(path: Path) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(copy.deepcopy(load(path)))
    validate_config(prepared)
    assert prepared["cluster_name"] == f"poma3d-{path.stem}"


@by_file
def test_rays_schema_refuses_a_misspelt_key(path: Path) -> None:
    from jsonschema import ValidationError
    from ray.autoscaler._private.util import prepare_config, validate_config

    with pytest.raises(ValidationError, match="idle_timeout_minute"):
        validate_config(prepare_config({**load(path), "idle_timeout_minute": 5}))


@by_file
def test_every_start_demands_the_token_and_the_dashboard_is_on_loopback(path: Path) -> None:
    commands = start_commands(load(path))
    options = [start_options(command) for command in commands]
    heads = [given for given in options if given["head"]]
    assert [head["dashboard_host"] for head in heads] == [LOOPBACK]
    assert all(given["ray_client_server_port"] is None for given in options), "no door without the token"
    for command in commands:
        words = shlex.split(command)
        assert "RAY_AUTH_MODE=token;" in words[: words.index("start")]
        assert "0.0.0.0" not in command


@by_file
def test_ray_start_knows_every_option_and_takes_its_value(path: Path) -> None:
    from click import UsageError

    for command in start_commands(load(path)):
        assert start_options(command)["address" if "--address" in command else "head"]
        for wrong, problem in (("--prot=6379", "No such option"), ("--num-cpus=two", "not a valid integer")):
            with pytest.raises(UsageError, match=problem):
                start_options(f"{command} {wrong}")


@by_file
def test_containers_know_the_token_and_publish_no_port(path: Path) -> None:
    cluster = load(path)
    docker = cluster.get("docker")
    if docker is None:
        assert path.stem == "local", "only this machine runs without an image"
        return
    groups = [docker, *(t.get("docker", {}) for t in node_types(path).values())]
    options = [o for group in groups for key in group if key.endswith("run_options") for o in group[key]]
    assert "-e RAY_AUTH_MODE=token" in docker["run_options"]
    assert not [o for o in options if o.split()[0] in ("-p", "--publish", "--privileged")]
    assert cluster["file_mounts"] == {"~/.ray/auth_token": "~/.ray/auth_token"}


@by_file
def test_idle_nodes_stop_and_the_cluster_size_is_bounded(path: Path) -> None:
    cluster = load(path)
    assert 0 < cluster["idle_timeout_minutes"] <= 60
    assert 0 <= cluster["max_workers"] <= 10
    for name, node in node_types(path).items():
        assert node["max_workers"] <= 8, name
        assert node.get("min_workers", 0) == 0, f"{name} costs while nothing runs"


@clouds
def test_training_and_reading_are_kept_apart(path: Path) -> None:
    types = node_types(path)
    for name, node in types.items():
        resources = node["resources"]
        if "GPU" in resources:
            assert resources["CPU"] == resources["GPU"], (
                f"{name}: CPUs beyond the workers' would take readers"
            )
            assert node["labels"]["poma-role"] == "train"
    assert types["head"]["resources"] == {"CPU": 0}
    assert types["data"]["resources"]["data"] > 0
    assert types["data"]["labels"] == {"poma-role": "data"}


@clouds
def test_spot_and_on_demand_differ_only_in_the_market(path: Path) -> None:
    spot, on_demand = (dict(node_types(path)[f"gpu_{m}"]["node_config"]) for m in ("spot", "on_demand"))
    market = spot.pop("InstanceMarketOptions", None) or spot.pop("scheduling")
    on_demand.pop("scheduling", None)
    assert "spot" in str(market).lower()
    assert spot == on_demand
    ranks = [node_types(path)[f"gpu_{m}"].get("priority", 0) for m in ("spot", "on_demand")]
    assert ranks[0] > ranks[1], "spot is tried first where both may be bought"


@clouds
def test_only_the_head_is_reached_from_outside(path: Path) -> None:
    """Ray refuses private subnets without the first, and looks for the head inside without the second."""
    provider = load(path)["provider"]
    assert provider["use_internal_ips"] is True
    assert provider["use_external_head_ip"] is True


@clouds
def test_every_machine_is_in_the_price_table(path: Path) -> None:
    machines = load(CLUSTERS / PRICES)["machines"]
    for name, node in node_types(path).items():
        row = machines[machine(node["node_config"])]
        assert row["gpus"] == node["resources"].get("GPU", 0), name
        assert row["on_demand"] > 0


def test_machines_of_your_own_are_in_the_price_table() -> None:
    machines = load(CLUSTERS / PRICES)["machines"]
    for name in ("local", "onprem"):
        assert load(CLUSTERS / f"{name}.yaml")["metadata"]["machine"] in machines


@aws
def test_nodes_have_their_cards_their_group_and_no_public_address(path: Path) -> None:
    assert "security_group" not in load(path)["provider"], (
        "Ray would open SSH to everyone in a group of its own"
    )
    for name, node in node_types(path).items():
        config = node["node_config"]
        assert config["MetadataOptions"]["HttpTokens"] == "required", name
        assert all(disk["Ebs"]["Encrypted"] for disk in config["BlockDeviceMappings"]), name
        assert config["IamInstanceProfile"]["Name"] == ("poma3d-head" if name == "head" else "poma3d-node")
        cards = config.get("NetworkInterfaces")
        if cards is None:
            assert config["SecurityGroupIds"] == ["sg-CLUSTER"], name
            continue
        assert len(cards) == EFA_CARDS[config["InstanceType"]]
        assert [card["NetworkCardIndex"] for card in cards] == list(range(len(cards)))
        assert [card["DeviceIndex"] for card in cards] == [0] + [1] * (len(cards) - 1)
        assert cards[0]["InterfaceType"] == "efa", "the first card carries IP"
        assert all(card["InterfaceType"].startswith("efa") for card in cards)
        assert all((c["SubnetId"], c["Groups"]) == ("subnet-PRIVATE", ["sg-CLUSTER"]) for c in cards)
        assert not [card for card in cards if card.get("AssociatePublicIpAddress")]


@pytest.mark.parametrize("path", [p for p in FILES if p.stem.startswith("gcp")], ids=lambda p: p.stem)
def test_only_the_head_has_a_public_address(path: Path) -> None:
    public = {
        name
        for name, node in node_types(path).items()
        if any("accessConfigs" in card for card in node["node_config"]["networkInterfaces"])
    }
    assert public == {"head"}
