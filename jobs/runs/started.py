"""How a run was started, each time: `starts.json` in its folder, for its page."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from jobs.common.ray_config import RayConfig
from plinth.observe.failures import utc
from plinth.redaction import redact
from plinth.storage import Storage
from plinth.storage.json_objects import filled

STARTS_KEY = "starts.json"
DISTRIBUTION = "poma3d-platform"
KEPT = 50
"""The newest starts."""
GIT_LIMIT_S = 5.0


@dataclass(frozen=True)
class Start:
    """One start of a run's driver."""

    time: float
    command: str
    """The command line, without secrets."""
    code: str
    """Version of this package, and its commit where it runs from a checkout."""
    cluster: str
    """Address of the Ray cluster, or what was started."""

    def facts(self) -> dict[str, str]:
        """For a page."""
        return {"Started": utc(self.time), "Command": self.command, "Code": self.code, "Ray": self.cluster}


def record_start(storage: Storage, ray: RayConfig, workers: int) -> None:
    """Add this process to the starts of a run.

    Args:
        workers: 0 for a run without Ray.
    """
    cluster = ray.joined_address or "started for this run, on this machine"
    where = cluster if workers else "none: trained in the driver"
    start = Start(time.time(), command_line(), code_version(), where)
    found = [asdict(one) for one in read_starts(storage)]
    storage.write(STARTS_KEY, json.dumps([*found, asdict(start)][-KEPT:], indent=1).encode())


def read_starts(storage: Storage) -> list[Start]:
    """The starts that are recorded, by time; none of runs from before there was a record."""
    if not storage.exists(STARTS_KEY):
        return []
    with contextlib.suppress(ValueError, TypeError, RecursionError):
        return [filled(Start, one) for one in json.loads(storage.read(STARTS_KEY))]
    return []


def command_line() -> str:
    """That of this process, without secrets."""
    return redact(" ".join([Path(sys.argv[0]).name, *sys.argv[1:]]))


def code_version() -> str:
    """Version of this package; from a checkout with its commit, and + where files differ from it."""
    try:
        found = version(DISTRIBUTION)
    except PackageNotFoundError:
        found = "unknown version"
    folder = Path(__file__).parents[2]
    if not (folder / ".git").exists():
        return found
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        said = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"],
            cwd=folder, capture_output=True, text=True, timeout=GIT_LIMIT_S, check=True,
        )  # fmt: skip
        return f"{found}, commit {said.stdout.strip()}"
    return found
