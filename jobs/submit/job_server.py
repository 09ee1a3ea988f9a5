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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from plinth.errors import STOPPED_EXIT_CODE, ConfigError, StorageError, WorkersLostError
from plinth.redaction import redact

DASHBOARD = "http://127.0.0.1:8265"
LOOPBACK = ("127.0.0.1", "localhost")
OVERRULING = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
"""With them in the environment Ray's client would go elsewhere than it was told."""
TOKEN_ENV, TOKEN_PATH_ENV, MODE_ENV = "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"
NOISY = ("dashboard_sdk", "job.sdk")
NO_COMMAND_EXIT_CODE = 127
SHOWN_IDS = 5
TAIL_LINES = 40
"""Lines of the log that one sees on coming back."""
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
    """Where a cluster's job server is."""

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
        headers = _token_header()
        with _explained(target, bool(headers)), _as_told():
            self._client = JobSubmissionClient(target.address, headers=headers)
        self._has_token = bool(headers)

    def submissions(self, name: str) -> list[Any]:
        """What was ever submitted under `name`, the oldest first."""
        with self._explained():
            jobs = self._client.list_jobs()
        mine = [job for job in jobs if re.fullmatch(rf"{re.escape(name)}-\d+", job.submission_id or "")]
        return sorted(mine, key=lambda job: int(job.submission_id.rpartition("-")[2]))

    def submit(self, name: str, **what: Any) -> str:
        """Send a job under the next number of `name`; returns its id.

        Raises:
            ConfigError: somebody else has sent it in the same moment.
        """
        earlier = self.submissions(name)
        number = int(earlier[-1].submission_id.rpartition("-")[2]) + 1 if earlier else 1
        submission_id = f"{name}-{number}"
        deadline = time.monotonic() + START_LIMIT_S
        is_again = False
        with self._explained():
            while True:
                try:
                    return str(self._client.submit_job(submission_id=submission_id, **what))
                except RuntimeError as error:
                    if is_again and TAKEN in str(error):
                        return submission_id  # the answer before was lost, the job was not
                    if NOT_READY not in str(error):
                        raise
                    if time.monotonic() > deadline:
                        raise ConfigError(
                            f"The head behind {self.target.address} has no agent that starts jobs.",
                            "Two Rays on one machine take each other's port: start this head with "
                            "--dashboard-agent-listen-port=PORT, another than 52365.",
                        ) from None
                print("the head is not ready yet, trying again", flush=True)
                is_again = True
                time.sleep(RETRY_S)

    def info(self, submission_id: str) -> Any:
        """Status and more.

        Raises:
            ConfigError: there is no such job.
        """
        with self._explained():
            return self._client.get_job_info(submission_id)

    def check_known(self, submission_id: str) -> None:
        """Find out whether there is such a job.

        Raises:
            ConfigError: there is none; names the last ones.
        """
        with self._explained():
            jobs = [job for job in self._client.list_jobs() if job.submission_id]
        if submission_id not in {job.submission_id for job in jobs}:
            latest = [job.submission_id for job in sorted(jobs, key=lambda job: job.start_time or 0)]
            known = ", ".join(latest[-SHOWN_IDS:]) or "none"
            raise ConfigError(
                f"{self.target.address} has no job {submission_id}.", f"Its last ones: {known}."
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
                if error is None and (ended := self._ended(submission_id)) is not None:
                    return ended
            except ConfigError as gone:
                error = gone
            now = time.monotonic()
            away_since = now if away_since is None or seen > before else away_since
            if error is not None and now - away_since > AWAY_LIMIT_S:
                raise WorkersLostError(
                    f"{self.target.address} is out of reach ({_gist(str(error))}).",
                    f"The job may go on: poma submit --attach {submission_id} {self.target.flag}",
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

    def _ended(self, submission_id: str) -> int | None:
        """The exit code of a job whose log has ended; None while it runs."""
        deadline = time.monotonic() + SETTLE_S
        while True:
            info = self.info(submission_id)
            if info.status.is_terminal():
                return self._exit_code(submission_id, info)
            if time.monotonic() > deadline:
                return None
            time.sleep(RETRY_S / 4)

    def _exit_code(self, submission_id: str, info: Any) -> int:
        code = info.driver_exit_code
        if code is None:
            code = {"SUCCEEDED": 0, "STOPPED": STOPPED_EXIT_CODE}.get(str(info.status.value), 1)
        said = {0: "done", STOPPED_EXIT_CODE: "stopped"}.get(code, f"failed with exit code {code}")
        if info.driver_exit_code is None and info.message and code:
            said += f": {redact(info.message).splitlines()[0]}"
        if code == NO_COMMAND_EXIT_CODE:
            said += ": the head has no `poma` on its PATH; install it in the image or the environment of Ray"
        print(f"{submission_id}: {said}")
        return int(code)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        with _explained(self.target, self._has_token):
            yield


def is_alive(job: Any) -> bool:
    """Whether a submitted job waits or runs."""
    return not job.status.is_terminal()


@contextmanager
def _explained(target: Target, has_token: bool) -> Iterator[None]:
    """Ray's and the network's errors in one line each."""
    import requests
    from ray.exceptions import AuthenticationError

    try:
        yield
    except AuthenticationError:
        raise ConfigError(
            f"{target.address} refuses the token that it was shown." if has_token
            else f"{target.address} wants a token, and there is none here.",
            f"Set {TOKEN_PATH_ENV} to the file with the cluster's token (~/.ray/auth_token on its head).",
        ) from None  # fmt: skip
    except (ConnectionError, requests.exceptions.RequestException):
        raise ConfigError(f"No Ray cluster answers at {target.address}.", target.fix) from None
    except RuntimeError as error:
        raise ConfigError(f"{target.address}: {_gist(str(error))}.") from None


def _gist(text: str) -> str:
    """The line of an answer that says what is wrong: the last one of a traceback."""
    lines = [line.strip() for line in redact(text).splitlines() if line.strip().strip(".")]
    return lines[-1].rstrip(".") if lines else "an empty answer"


def _token_header() -> dict[str, str]:
    """The token as Ray looks for it, and also where the mode is not set: a cluster without one ignores it.

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
    """Without the variables that would lead Ray's client elsewhere."""
    kept = {name: os.environ.pop(name) for name in OVERRULING if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)
