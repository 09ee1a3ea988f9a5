"""Where a command's tasks and workers run."""

from __future__ import annotations

import os
from dataclasses import dataclass

from plinth.counts import Count


@dataclass
class RayConfig:
    """Where the tasks run."""

    address: str | None = None
    """Address of a running cluster, `auto` for the one of this node; empty starts one on this machine."""
    num_cpus: Count | None = None
    """CPUs that a cluster started here offers to tasks and workers; empty for all that the machine has."""
    object_store_bytes: Count = 1_000_000_000
    """Shared memory of a cluster started here."""
    dashboard: bool = False
    """Ray's dashboard for a cluster started here, on loopback: ten more processes. Training that joins this
    cluster from another command needs it to tidy up after a kill."""

    @property
    def joined_address(self) -> str | None:
        """The running cluster to join, from here or RAY_ADDRESS; None starts one on this machine."""
        return self.address or os.environ.get("RAY_ADDRESS")
