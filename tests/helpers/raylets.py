"""A Ray cluster of separate raylets on this machine, in a process of its own and behind a token: a head with
a job server and no room for workers, and nodes with room for one each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
STOP_TIMEOUT_S = 60.0
STORE_BYTES = 80_000_000
HEALTH = {"health_check_period_ms": 500, "health_check_failure_threshold": 6}
"""A node that is gone is noticed after three seconds."""


@dataclass
class Raylets:
    """A running cluster."""

    dashboard: str
    pids: list[int]
    """Of the nodes' raylets, without the head's."""
    session: Path
    """Where its processes write their logs."""
    environment: dict[str, str] = field(default_factory=dict)
    """Of a client that has the token."""


@contextmanager
def running(nodes: int, folder: Path, secrets: dict[str, str]) -> Iterator[Raylets]:
    """Start a cluster, end it afterwards.

    Args:
        folder: gets the token and the log.
        secrets: variables of all its processes.
    """
    token = folder / "token"
    token.write_text("only-for-this-test-0123456789abcdef")
    client = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    client |= {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "tests.helpers.raylets", str(nodes)]
    with (folder / "raylets.log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=client | {"PYTHONPATH": str(ROOT)} | secrets, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, (folder / "raylets.log").read_text()[-3000:]
        found = json.loads(line)
        yield Raylets(found["dashboard"], found["pids"], Path(found["session"]), client)
    finally:
        process.stdin.close()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()  # Ray's reaper ends what it has started
            process.wait()
        process.stdout.close()


def _main(nodes: int) -> None:
    from ray.cluster_utils import Cluster

    from jobs.common.cluster import free_port

    # The default ports may be another Ray's of this machine: without its agent the head starts no job.
    port = free_port()
    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 0, "include_dashboard": True, "dashboard_host": "127.0.0.1", "dashboard_port": port,
            "dashboard_agent_listen_port": free_port(), "object_store_memory": STORE_BYTES,
            "_system_config": HEALTH,
        },
    )  # fmt: skip
    added: list[Any] = [
        cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES, wait=False) for _ in range(nodes)
    ]
    cluster.wait_for_nodes()
    pids = [node.all_processes["raylet"][0].process.pid for node in added]
    session = cluster.head_node.get_session_dir_path()
    told = {"dashboard": f"http://127.0.0.1:{port}", "pids": pids, "session": session}
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()
    sys.stdin.read()
    cluster.shutdown()


if __name__ == "__main__":
    _main(int(sys.argv[1]))
