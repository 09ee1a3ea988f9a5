"""What a cluster file offers and what it costs: node types joined with the price table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from plinth.errors import ConfigError
from plinth.units import GIB

PRICES = "prices.yaml"
"""Beside the cluster files."""
TERA = 10**12
ON_DEMAND, SPOT = "on_demand", "spot"
LOCAL = "local"


@dataclass(frozen=True)
class Gpu:
    """A kind of GPU, from its maker's data sheet."""

    name: str
    memory_bytes: int
    bf16_flops: float
    """Operations per second of the matrix units, dense."""
    fp32_flops: float


@dataclass(frozen=True)
class NodeType:
    """One kind of machine of a cluster."""

    name: str
    machine: str
    gpus: int
    gpu: Gpu | None
    market: str
    hourly: float | None
    """None where the table has no price."""
    most: int
    """How many there may be."""


@dataclass(frozen=True)
class Cluster:
    """The node types of a cluster file, with prices as of a day."""

    path: Path
    head: NodeType
    workers: list[NodeType]
    currency: str
    as_of: str

    @property
    def train(self) -> NodeType | None:
        """The machines that would train: the first with GPUs that may be started."""
        return next((n for n in (*self.workers, self.head) if n.gpus and n.most), None)

    @property
    def data(self) -> list[NodeType]:
        """The machines beside them."""
        return [n for n in self.workers if not n.gpus and n.most]


def read_cluster(path: Path, prices: Path | None = None) -> Cluster:
    """Read a file of clusters/.

    Args:
        prices: the price table; the one beside the cluster file when None.

    Raises:
        ConfigError: a file that is not there or not what it should be, or a machine that the table lacks.
    """
    cluster, table_path = _read(path), prices or path.parent / PRICES
    table = _read(table_path)
    try:
        if cluster["provider"]["type"] == LOCAL:
            head, workers = _own_machines(cluster, table, table_path)
        else:
            types = cluster["available_node_types"]
            nodes = {name: _node(name, entry, table, table_path) for name, entry in types.items()}
            head = nodes.pop(cluster["head_node_type"])
            workers = list(nodes.values())
        return Cluster(path, head, workers, str(table["currency"]), str(table["as_of"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path} with {table_path}: {type(error).__name__} {error}.",
            "Compare them with clusters/aws-h100.yaml and clusters/prices.yaml.",
        ) from None


def _own_machines(
    cluster: dict[str, Any], table: dict[str, Any], where: Path
) -> tuple[NodeType, list[NodeType]]:
    """The head and the hosts of a list of machines: all of the kind that the file's metadata names."""
    machine = cluster["metadata"]["machine"]
    hosts = len(cluster["provider"]["worker_ips"])
    head = _priced("head", machine, ON_DEMAND, 1, table, where)
    return head, [_priced("hosts", machine, ON_DEMAND, hosts, table, where)] if hosts else []


def _node(name: str, entry: dict[str, Any], table: dict[str, Any], where: Path) -> NodeType:
    config = entry["node_config"]
    machine = config.get("InstanceType") or config["machineType"]
    aws_spot = config.get("InstanceMarketOptions", {}).get("MarketType") == SPOT
    gcp_spot = config.get("scheduling", {}).get("provisioningModel") == SPOT.upper()
    market = SPOT if aws_spot or gcp_spot else ON_DEMAND
    return _priced(name, machine, market, int(entry.get("max_workers", 0)), table, where)


def _priced(name: str, machine: str, market: str, most: int, table: dict[str, Any], where: Path) -> NodeType:
    row = table["machines"].get(machine)
    if row is None:
        raise ConfigError(
            f"{where} has no machine {machine} (node type {name}).",
            f"Add it; there are {', '.join(table['machines'])}.",
        )
    gpu = None
    if row["gpu"] is not None:
        sheet = table["gpus"][row["gpu"]]
        gpu = Gpu(
            row["gpu"],
            int(sheet["memory_gib"] * GIB),
            sheet["bf16_tflops"] * TERA,
            sheet["fp32_tflops"] * TERA,
        )
    hourly = None if row[market] is None else float(row[market])
    return NodeType(name, machine, int(row["gpus"]), gpu, market, hourly, most)


def documents(path: Path) -> list[Any]:
    """The YAML documents of a cluster file, or of a manifest for Kubernetes.

    Raises:
        ConfigError: it is not there, cannot be read, or is no YAML.
    """
    try:
        return [one for one in yaml.safe_load_all(path.read_text()) if one is not None]
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file.", "Cluster files are in clusters/.") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None


def _read(path: Path) -> dict[str, Any]:
    found = documents(path)
    if len(found) != 1 or not isinstance(found[0], dict):
        raise ConfigError(f"{path}: expected `key: value` lines at the top.")
    content: dict[str, Any] = found[0]
    return content
