"""Joining or starting a Ray cluster, and mapping a function over it with progress."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from jobs.common.ray_config import RayConfig
from jobs.display.progress import Progress
from plinth.errors import STOPPED_EXIT_CODE, ConfigError, PlinthError, first_line
from plinth.every import Every
from plinth.observe import terminal
from plinth.ray_internals.core import cluster_of_this_node, ended_services, stay_on_loopback

TOKEN_ENV, TOKEN_PATH_ENV = "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
TOKEN_BYTES = 32
ANSWER_S = 5.0
"""How long a cluster may take to take a connection."""
LOOPBACK = "127.0.0.1"
RAY_CLIENT_PORT = "10001"
"""Of ray://HOST without a port."""

SERVICES_EVERY_S = 1.0
NEEDED_SERVICES = ("gcs_server", "raylet")
"""Processes of a cluster started here without which it does not work."""

OF_LOGS = {"RAY_LOG_MONITOR_MANY_FILES_THRESHOLD": "0"}  # a look for new logs twice, not ten times a second
WITHOUT_DASHBOARD = {
    "REPORTER_UPDATE_INTERVAL_MS": "60000",  # what each process uses, for dashboard and Prometheus: 5 s
    "RAY_OVERRIDE_DASHBOARD_URL": "",  # workers take it to be there, at the usual port, unless told
}
"""Ray's settings for a cluster that starts here: its own suit machines with cores to spare."""

USUAL_WORKERS = 2
"""Tasks at a time where a job does not say."""

log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")


@contextmanager
def ray_cluster(config: RayConfig, workers: int, saves_on_sigterm: bool = False) -> Iterator[None]:
    """Join the cluster, or start one on loopback and end it afterwards. Nests: the outermost decides.

    Args:
        workers: how many tasks or workers will run on it; with 0 none is needed.
        saves_on_sigterm: SIGTERM is a request to save, for which the cluster must outlive it; costs three
            seconds at the end, because Ray ends its processes by SIGTERM first.

    Raises:
        ConfigError: there is no cluster at the address.
    """
    if workers == 0:
        yield
        return
    import ray

    if ray.is_initialized():
        yield
        return
    terminal.drop_noise()
    terminal.drop_noisy_lines()
    address = config.joined_address
    # Ray's own switch: without it a task would see no accelerator it did not ask for, also where none is.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        if address:
            _check_answers(address)
            ray.init(address=address, logging_level=logging.WARNING)
        else:
            _give_token()
            stay_on_loopback()
            settings = OF_LOGS | ({} if config.dashboard else WITHOUT_DASHBOARD)
            with _inherited(settings), _children_without_sigterm() if saves_on_sigterm else nullcontext():
                started = ray.init(
                    address="local",
                    num_cpus=config.num_cpus,
                    object_store_memory=config.object_store_bytes,
                    include_dashboard=config.dashboard,
                    dashboard_host=LOOPBACK,
                    _node_ip_address=LOOPBACK,
                    logging_level=logging.WARNING,
                )
            if config.dashboard:
                print(f"Ray's dashboard: http://{started.dashboard_url} (asks for Ray's token)")
    except (ConnectionError, SystemExit) as error:  # Ray exits where what listens there is no cluster
        source = "ray.address" if config.address else "RAY_ADDRESS"
        raise ConfigError(
            f"{source} {address}: no Ray cluster answers there ({first_line(error)}).",
            f"Start one, or {'leave' if config.address else 'unset'} {source} "
            f"{'empty ' if config.address else ''}to run on this machine.",
        ) from None
    except Exception as error:  # Ray's own class for it is Exception
        if "timed out during startup" not in str(error):
            raise
        raise ConfigError(
            "Ray did not start on this machine within half a minute.",
            "The machine is busy with other work: run the command again, or with workers=0 or fit.workers=0.",
        ) from None
    told: set[str] = set()
    watching = Every(SERVICES_EVERY_S, partial(_tell_of_ended, told), "Ray's processes cannot be looked at")
    try:
        with _ends_at_sigterm():
            yield
    finally:
        watching.close()
        ray.shutdown()


def _tell_of_ended(told: set[str]) -> None:
    """Say once which of Ray's own processes has ended on this machine: what follows from that names it not,
    and may end this process without a word."""
    for name in (name for name in ended_services() if name not in told):
        told.add(name)
        if name in NEEDED_SERVICES:
            log.error(
                "Ray's %s on this machine has ended (killed, or out of memory), and this command with it; "
                "the same command goes on from what has been kept", name,
            )  # fmt: skip
        else:
            log.warning("Ray's %s on this machine has ended: the command goes on without it", name)


@contextmanager
def _ends_at_sigterm() -> Iterator[None]:
    """SIGTERM ends the command with one line and in order. Ray has put a handler of its own there, which
    prints the stacks of its threads and ends the process before anything is tidied up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        print("ended by SIGTERM", file=sys.stderr)
        raise SystemExit(STOPPED_EXIT_CODE)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)


@contextmanager
def _inherited(variables: Mapping[str, str]) -> Iterator[None]:
    """Environment variables of the processes that are started meanwhile, unless they are set already."""
    new = [name for name in variables if name not in os.environ]
    os.environ.update({name: variables[name] for name in new})
    try:
        yield
    finally:
        for name in new:
            del os.environ[name]


@contextmanager
def _children_without_sigterm() -> Iterator[None]:
    """Processes that start in here, and theirs, never see SIGTERM: signal masks are inherited.

    `timeout`, a shell, Slurm and systemd signal all processes of a job at once. Without this Ray's own die
    first, and with them the workers that were to save. Ray does the same with SIGINT (`start_ray_process`).
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _give_token() -> None:
    """Ray keeps the token of a cluster that it starts in the home folder. Containers may give a uid that has
    none, or one that it cannot write: the cluster's processes then inherit a token of their own."""
    given = os.environ.get(TOKEN_ENV) or os.environ.get(TOKEN_PATH_ENV)
    if not given and not _can_keep_token():
        os.environ[TOKEN_ENV] = secrets.token_hex(TOKEN_BYTES)


def _can_keep_token() -> bool:
    try:
        home = Path.home()
    except RuntimeError:
        return False
    has_token = (home / ".ray" / "auth_token").is_file()
    return has_token or (home.is_dir() and os.access(home, os.W_OK))


def _check_answers(address: str) -> None:
    """Ray itself waits minutes for a cluster that is not there, and for one of this machine that listens on
    loopback alone, because it takes the machine's address in place of loopback.

    Raises:
        ConnectionError: nothing listens at the address.
    """
    from ray.util import get_node_ip_address

    scheme, _, place = address.rpartition("://")
    if scheme not in ("", "ray") or place == "local":
        return
    if place == "auto":
        place = cluster_of_this_node() or ""
    host, _, port = place.rpartition(":") if ":" in place else (place, "", RAY_CLIENT_PORT)
    if not host or not port.isdecimal():
        return  # Ray has its own words for it
    own = get_node_ip_address()
    is_here = scheme == "" and host in (LOOPBACK, "localhost", own)
    if is_here and _why_silent(own, port) and not _why_silent(LOOPBACK, port):
        stay_on_loopback()
    elif why := _why_silent(host.strip("[]"), port):
        raise ConnectionError(f"{place}: {why}")


def _why_silent(host: str, port: str) -> str:
    """Why nothing answers there; empty where something does."""
    try:
        socket.create_connection((host, int(port)), ANSWER_S).close()
    except OSError as error:
        return first_line(error)
    return ""


def chosen_workers(workers: int | None, tasks: int, config: RayConfig, unit: str) -> int:
    """How many tasks run at a time, where the job leaves it open: one task needs no cluster, whose start
    takes longer than a small scan.

    Args:
        workers: of the job; None leaves it open.
        tasks: how many there are.
        unit: what one task makes, such as "shard".
    """
    if workers is not None:
        return workers
    if tasks > 1 or config.joined_address is not None or ("ray" in sys.modules and _is_initialized()):
        return USUAL_WORKERS
    print(f"1 {unit}: done in this process, without Ray (workers=1 starts it)")
    return 0


def _is_initialized() -> bool:
    import ray

    return bool(ray.is_initialized())


def map_tasks(
    function: Callable[[T], R],
    items: Sequence[T],
    workers: int,
    each: Mapping[str, float],
    label: str,
    unit: str,
) -> list[R]:
    """`function` of each item in Ray tasks, results in the order of the items, with progress and ETA.

    Args:
        function: module-level or picklable.
        workers: how many tasks run at a time; 0 runs them here, without Ray.
        each: "CPU" and "GPU" that a task claims.

    Raises:
        ConfigError: the cluster has not as much as one task claims.
        PlinthError: the first one that a task raised. What is not handed to Ray by then never is; what runs
            is not cancelled, because to cancel a task that is just ending can abort this process.
    """
    progress = Progress(label, unit, len(items))
    if workers == 0:
        results = []
        for item in items:
            results.append(function(item))
            progress.advance()
        return results
    import ray

    check_room("These tasks each", each, "Lower what a task claims, or join a larger cluster.")
    claims = {"num_cpus": each.get("CPU", 0.0), "num_gpus": each.get("GPU", 0.0)}
    remote = ray.remote(**claims, max_retries=2)(function)
    waiting = list(enumerate(items))[::-1]
    running: dict[Any, int] = {}
    done: dict[int, R] = {}
    while waiting or running:
        while waiting and len(running) < workers:
            index, item = waiting.pop()
            running[remote.remote(item)] = index
        for ref in ray.wait(list(running), num_returns=1)[0]:
            try:
                done[running.pop(ref)] = ray.get(ref)
            except ray.exceptions.RayTaskError as error:
                raise (error.cause if isinstance(error.cause, PlinthError) else error) from None
            progress.advance()
    return [done[i] for i in range(len(items))]


def check_room(what: str, needs: Mapping[str, float], hint: str) -> None:
    """Refuse what would wait for ever.

    Raises:
        ConfigError: the cluster has less than that.
    """
    import ray

    has = ray.cluster_resources()
    for name, need in needs.items():
        if has.get(name, 0.0) < need:
            raise ConfigError(f"{what} need {need:g} {name}; there are {has.get(name, 0.0):g}.", hint)


def free_port(host: str = LOOPBACK) -> int:
    """A port that nobody listens on; of all interfaces with an empty host."""
    with socket.socket() as free:
        free.bind((host, 0))
        return int(free.getsockname()[1])
