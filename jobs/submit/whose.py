"""Whose a cluster is that answers on this machine, asked before a job is sent to it for the first time.

Behind a loopback address is whoever came first: a forwarded port of your cluster, or the Ray of a notebook, a
colleague, another run. All of them take a job. So the first submission to each shows where it runs, who
started it and when, and wants a yes; later ones to the same cluster do not.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import pwd
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jobs.common.models import cache_folder
from plinth.errors import ConfigError
from plinth.observe.failures import utc
from plinth.redaction import printable

KNOWN_FILE = "clusters.json"
"""Below the cache folder: address -> session of the cluster that jobs were sent to."""
YES = ("y", "yes")


@dataclass(frozen=True)
class Cluster:
    """What tells a running cluster from others."""

    address: str
    session: str
    """Of Ray: another one after each start."""
    host: str = ""
    """Name and address of the head."""
    user: str = ""
    """Who started it; empty where its files are not on this machine."""
    started: float | None = None
    """Seconds since 1970."""

    @property
    def is_loopback(self) -> bool:
        """Whether its address is of this machine alone."""
        host = urlsplit(self.address).hostname or ""
        try:
            ip = ipaddress.ip_address(host)
        except ValueError:
            return host == "localhost"
        return ip.is_loopback or ip.is_unspecified  # 0.0.0.0 reaches this machine, too

    def words(self) -> str:
        """Where, who and when, in a line."""
        said = [f"the Ray cluster at {self.address}"]
        if self.host:
            said.append(f"on {self.host}")
        if self.user or self.started is not None:
            said.append("started")
        if self.user:
            said.append(f"by {self.user}")
        if self.started is not None:
            said.append(f"at {utc(self.started)}")
        return printable(" ".join(said))


def describe(address: str, version: dict[str, Any], nodes: dict[str, Any]) -> Cluster:
    """A cluster by what its dashboard says.

    Args:
        version: the answer of /api/version.
        nodes: the answer of /nodes?view=summary; empty where it has none.
    """
    summaries = (nodes.get("data") or {}).get("summary") or []
    head: dict[str, Any] = next((one for one in summaries if one.get("raylet", {}).get("isHeadNode")), {})
    raylet = head.get("raylet", {})
    host = " ".join(filter(None, (head.get("hostname"), f"({head['ip']})" if head.get("ip") else "")))
    started = raylet.get("startTimeMs")
    return Cluster(
        address,
        str(version.get("session_name", "")),
        host,
        _owner(str(raylet.get("sessionDir", ""))),
        float(started) / 1000 if started else None,
    )


def _owner(folder: str) -> str:
    """Name of the owner of a cluster's files; empty where they are not here."""
    if not folder:
        return ""
    try:
        return pwd.getpwuid(Path(folder).stat().st_uid).pw_name
    except (OSError, KeyError):
        return ""


def make_sure(cluster: Cluster, is_sure: bool, ask: Callable[[str], str] | None = None) -> None:
    """Say whose cluster it is, and ask where that is not certain: at a loopback address, the first time.

    Args:
        is_sure: `--yes` was given.
        ask: puts a question to the user; None where nobody can answer.

    Raises:
        ConfigError: the answer is no, or nobody can give one.
    """
    was_told = bool(cluster.session) and _known().get(cluster.address) == cluster.session
    is_known = was_told or not cluster.is_loopback
    if not is_known and not is_sure and ask is None:
        raise ConfigError(
            f"Nothing was sent to it from here before: {cluster.words()}.",
            "If it is yours, add --yes; it is asked once for each start of a cluster.",
        )
    print(f"to {cluster.words()}", file=sys.stderr)
    if is_known:
        return
    if not is_sure and ask is not None:
        answer = ""
        with contextlib.suppress(EOFError):  # Ctrl-D
            answer = ask("Nothing was sent to it from here before. Is it yours? [y/N] ")
        if answer.strip().lower() not in YES:
            raise ConfigError("Nothing was sent.", "Give --cluster or --address of the right one.")
    _remember(cluster)


def asker() -> Callable[[str], str] | None:
    """How to ask the user; None where standard input is no terminal."""
    return input if sys.stdin.isatty() else None


def _known() -> dict[str, str]:
    try:
        found = json.loads((cache_folder() / KNOWN_FILE).read_text())
    except (OSError, ValueError, ConfigError):
        return {}
    return found if isinstance(found, dict) else {}


def _remember(cluster: Cluster) -> None:
    with contextlib.suppress(OSError, ConfigError):  # then it is asked again
        path = cache_folder() / KNOWN_FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({**_known(), cluster.address: cluster.session}, indent=1) + "\n")
