"""Builds Swift's three rings with one device each. Runs in Swift's own environment:

python rings.py <folder> <device> <account port> <container port> <object port>
"""

from __future__ import annotations

import sys
from pathlib import Path

from swift.common.ring import RingBuilder

PART_POWER, REPLICAS, MIN_PART_HOURS = 4, 1, 1


def build(folder: Path, device: str, ports: dict[str, int]) -> None:
    """Write account.ring.gz, container.ring.gz and object.ring.gz to `folder`."""
    for name, port in ports.items():
        builder = RingBuilder(PART_POWER, REPLICAS, MIN_PART_HOURS)
        builder.add_dev(
            {"region": 1, "zone": 1, "ip": "127.0.0.1", "port": port, "device": device, "weight": 1.0,
             "replication_ip": "127.0.0.1", "replication_port": port}
        )  # fmt: skip
        builder.rebalance()
        builder.get_ring().save(str(folder / f"{name}.ring.gz"))


if __name__ == "__main__":
    folder, device, *ports = sys.argv[1:]
    build(Path(folder), device, dict(zip(("account", "container", "object"), map(int, ports), strict=True)))
