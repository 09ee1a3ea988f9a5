"""A cluster's job server: finding it, showing it the token, sending a job, following what it prints.

A head's dashboard, and the job server with it, listens on the head's loopback: it is reached on the head, or
through a forwarded port. Every request carries the cluster's token.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from jobs.submit.whose import Cluster, describe
from plinth.errors import STOPPED_EXIT_CODE, ConfigError, StorageError, WorkersLostError
from plinth.redaction import redact

DASHBOARD = "http://127.0.0.1:8265"
LOOPBACK = ("127.0.0.1", "localhost")
OVERRULING = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
"""Variables that make Ray's client connect to another address than it was given."""
TOKEN_ENV, TOKEN_PATH_ENV, MODE_ENV = "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"
NOISY = ("dashboard_sdk", "job.sdk")
NO_COMMAND_EXIT_CODE = 127
SHOWN_IDS = 5
TAIL_LINES = 40
"""Lines of the log that --attach shows first."""
VERSION, NODES = "/api/version", "/nodes?view=summary"
"""Of a dashboard: which session of Ray it is, and on which machines."""
ANSWER_S = 10.0
"""How long it may take to say that."""
SETTLE_S = 10.0
"""How long after the end of its log a job may take to say how it ended."""
START_LIMIT_S = 60.0
"""How long a head may take until it starts jobs."""
AWAY_LIMIT_S = 120.0
"""How long a cluster may be out of reach while its log is followed."""
RETRY_S = 2.0
NOT_READY, TAKEN = "No available agent", "already exists"
"""What Ray says while a head starts, and of an id that was used."""


@dataclass(frozen=True)
class Target:
    """Where the job server of a cluster is."""

    address: str
    flag: str
    """What names it on the command line."""
    fix: str
    """What to do if nobody answers there."""


def find(cluster: Path | None, address: str | None) -> Target:
    """The job server of a cluster file, or at an address.

    Raises:
        ConfigError: no such file, or not a cluster's.
    """
    if address is not None:
        url = address if "://" in address else f"http://{address}"
        return Target(
            url.rstrip("/"), f"--address {url}", "Check the address and that the port is forwarded."
        )
    assert cluster is not None
    try:
        provider = yaml.safe_load(cluster.read_text())["provider"]
        is_here = provider["type"] == "local" and provider["head_ip"] in LOOPBACK
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{cluster}: not a cluster file ({type(error).__name__}).", "Take one of clusters/."
        ) from None
    fix = (
        f"Start it: the last of head_start_ray_commands in {cluster}, less --autoscaling-config."
        if is_here
        else f"Forward the head's port in another terminal: ray dashboard {cluster} (after ray up {cluster})."
    )
    return Target(DASHBOARD, f"--cluster {cluster}", fix)


class JobServer:
    """A connection to the job server of a cluster."""

    def __init__(self, target: Target) -> None:
        """Connect.

        Raises:
            ConfigError: nobody answers, the token is missing or wrong, or it is no job server.
        """
        from ray.job_submission import JobSubmissionClient

        for name in NOISY:
            logging.getLogger(f"ray.dashboard.modules.{name}").setLevel(logging.WARNING)
        self.target = target
        headers = token_header()
        self._has_token = bool(headers)
        with self._explained(), _as_told():
            self._client = JobSubmissionClient(target.address, headers=headers)

    def cluster(self) -> Cluster:
        """Which cluster it is; a dashboard that cannot say it all says less."""
        import requests

        answers = []
        for path in (VERSION, NODES):
            try:
                url = f"{self.target.address}{path}"
                answer = requests.get(url, headers=token_header(), timeout=ANSWER_S).json()
            except (requests.exceptions.RequestException, ValueError):
                answer = {}
            answers.append(answer if isinstance(answer, dict) else {})
        return describe(self.target.address, *answers)

    def jobs(self) -> list[Any]:
        """Every job that was submitted, the oldest first."""
        with self._explained():
            found = [job for job in self._client.list_jobs() if job.submission_id]
        return sorted(found, key=lambda job: job.start_time or 0)

    def alive(self, name: str) -> list[Any]:
        """The jobs under `name` that wait or run."""
        jobs = self.jobs()
        mine = numbered(name, [job.submission_id for job in jobs])
        return [job for job in jobs if job.submission_id in mine and not job.status.is_terminal()]

    def submit(self, name: str, **what: Any) -> str:
        """Send a job under the next number of `name`; returns its id.

        Raises:
            ConfigError: another client sent it at the same moment.
        """
        submission_id = next_id(name, [job.submission_id for job in self.jobs()])
        with self._explained():
            send_when_ready(lambda: self._client.submit_job(submission_id=submission_id, **what), self.target)
        return submission_id

    def check_known(self, submission_id: str) -> None:
        """Refuse an id that no job has.

        Raises:
            ConfigError: there is none; names the last ones.
        """
        known = [job.submission_id for job in self.jobs()]
        if submission_id not in known:
            raise ConfigError(
                f"{self.target.address} has no job {submission_id}.",
                f"Its last ones: {', '.join(known[-SHOWN_IDS:]) or 'none'}.",
            )

    def follow(self, submission_id: str, is_new: bool) -> int:
        """Print what the job prints, until it ends; returns its exit code. Reconnects when the line is cut.

        Args:
            is_new: print all of it, else the last lines and what comes.

        Raises:
            WorkersLostError: the cluster is out of reach for too long.
        """
        seen = 0 if is_new else self._print_last_lines(submission_id)
        away_since: float | None = None
        while True:
            before = seen
            seen, error = asyncio.run(self._print_from(submission_id, seen))
            try:
                if error is None and (info := self._final(submission_id)) is not None:
                    code, text = ending(info.status.value, info.driver_exit_code, info.message)
                    print(f"{submission_id}: {text}")
                    return code
            except ConfigError as gone:
                error = gone
            now = time.monotonic()
            away_since = now if away_since is None or seen > before else away_since
            if error is not None and now - away_since > AWAY_LIMIT_S:
                raise WorkersLostError(
                    f"{self.target.address} is out of reach ({_last_line(str(error))}).",
                    f"The job may still run: poma submit --attach {submission_id} {self.target.flag}",
                )
            time.sleep(RETRY_S)

    def _print_last_lines(self, submission_id: str) -> int:
        with self._explained():
            text = self._client.get_job_logs(submission_id)
        for line in text.splitlines()[-TAIL_LINES:]:
            print(redact(line), flush=True)
        return len(text)

    async def _print_from(self, submission_id: str, start: int) -> tuple[int, Exception | None]:
        """Print the log from its `start`-th character on; how far it got, and what cut the line."""
        import aiohttp

        at = 0
        try:
            async for text in self._client.tail_job_logs(submission_id):
                fresh = text[max(0, start - at) :]
                at += len(text)
                if fresh:
                    print(redact(fresh), end="", flush=True)
        except (aiohttp.ClientError, OSError, RuntimeError) as error:
            return max(at, start), error
        return max(at, start), None

    def _final(self, submission_id: str) -> Any:
        """Ray's record of a job whose log has ended; None while it runs."""
        deadline = time.monotonic() + SETTLE_S
        while True:
            with self._explained():
                info = self._client.get_job_info(submission_id)
            if info.status.is_terminal():
                return info
            if time.monotonic() > deadline:
                return None
            time.sleep(RETRY_S / 4)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Ray's and the network's errors in one line each."""
        import requests
        from ray.exceptions import AuthenticationError

        address = self.target.address
        try:
            yield
        except AuthenticationError:
            raise ConfigError(
                f"{address} refuses the token that it was shown." if self._has_token
                else f"{address} wants a token, and there is none here.",
                f"Set {TOKEN_PATH_ENV} to the file with the cluster's token (~/.ray/auth_token on its head).",
            ) from None  # fmt: skip
        except (ConnectionError, requests.exceptions.RequestException):
            raise ConfigError(f"No Ray cluster answers at {address}.", self.target.fix) from None
        except RuntimeError as error:
            raise ConfigError(f"{address}: {_last_line(str(error))}.") from None


def numbered(name: str, ids: Iterable[str]) -> dict[str, int]:
    """Those of `ids` that are `name` with a number, and the number."""
    found = {id_: re.fullmatch(rf"{re.escape(name)}-(\d+)", id_) for id_ in ids}
    return {id_: int(match[1]) for id_, match in found.items() if match}


def next_id(name: str, ids: Iterable[str]) -> str:
    """`name` with the number after the highest that was used."""
    return f"{name}-{max(numbered(name, ids).values(), default=0) + 1}"


def send_when_ready(send: Callable[[], Any], target: Target) -> None:
    """Call `send` until the head has an agent that starts jobs.

    Raises:
        ConfigError: it has none in time.
        RuntimeError: the head refuses for another reason.
    """
    deadline = time.monotonic() + START_LIMIT_S
    is_again = False
    while True:
        try:
            send()
            return
        except RuntimeError as error:
            if is_again and TAKEN in str(error):
                return  # the first answer was lost, the job was not
            if NOT_READY not in str(error):
                raise
            if time.monotonic() > deadline:
                raise ConfigError(
                    f"The head behind {target.address} has no agent that starts jobs.",
                    "Two Rays on one machine take each other's port: start this head with "
                    "--dashboard-agent-listen-port=PORT, another than 52365.",
                ) from None
        print("the head is not ready yet, trying again", flush=True)
        is_again = True
        time.sleep(RETRY_S)


def ending(status: str, exit_code: int | None, message: str) -> tuple[int, str]:
    """The exit code of a job and how it ended.

    Args:
        exit_code: its driver's; None if Ray has none.
        message: Ray's.
    """
    code = exit_code
    if code is None:
        code = {"SUCCEEDED": 0, "STOPPED": STOPPED_EXIT_CODE}.get(status, 1)
    text = {0: "done", STOPPED_EXIT_CODE: "stopped"}.get(code, f"failed with exit code {code}")
    if exit_code is None and message and code:
        text += f": {redact(message).splitlines()[0]}"
    if code == NO_COMMAND_EXIT_CODE:
        text += ": the head has no `poma` on its PATH; install it in the image or the environment of Ray"
    return code, text


def _last_line(text: str) -> str:
    """The line of an answer that says what is wrong: the last one of a traceback."""
    lines = [line.strip() for line in redact(text).splitlines() if line.strip().strip(".")]
    return lines[-1].rstrip(".") if lines else "an empty answer"


def token_header() -> dict[str, str]:
    """The token where Ray looks for it, whatever the mode: a cluster without one ignores it.

    Raises:
        StorageError: the file that the environment names cannot be read.
    """
    if os.environ.get(MODE_ENV, "").lower() == "disabled":
        return {}
    named = os.environ.get(TOKEN_PATH_ENV)
    path = Path(named) if named else Path.home() / ".ray" / "auth_token"
    token = os.environ.get(TOKEN_ENV)
    if not token and (named or path.is_file()):
        try:
            token = path.read_text().strip()
        except OSError as error:
            raise StorageError(f"{TOKEN_PATH_ENV} {path}: {error.strerror}.", "Check the path.") from None
    return {"Authorization": f"Bearer {token}"} if token else {}


@contextmanager
def _as_told() -> Iterator[None]:
    """Without the variables that overrule the client's address."""
    kept = {name: os.environ.pop(name) for name in OVERRULING if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)
