"""Starts Swift's four servers on free ports of loopback, with keys made for this run."""

from __future__ import annotations

import getpass
import os
import secrets
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from infra.objectstore.install import REASON_CHARACTERS, ObjectStoreError, ensure_installed

HOST = "127.0.0.1"
DEVICE = "disk"
REGION = "us-east-1"
ACCESS_KEY = "test:tester"
FILTERS = (
    "catch_errors", "gatekeeper", "healthcheck", "listing_formats", "s3api", "tempauth", "bulk", "slo", "dlo",
)  # fmt: skip
BACKENDS = ("account", "container", "object")
_SETTINGS = {
    "s3api": f"location = {REGION}\ns3_acl = false\n",
    "tempauth": f"user_{ACCESS_KEY.replace(':', '_')} = SECRET .admin\n",
}
READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0
POLL_S = 0.1
START_ATTEMPTS = 3  # a port may be taken between its choice and its use


@dataclass(frozen=True)
class ObjectStore:
    """A running server."""

    endpoint_url: str
    access_key: str
    secret_key: str
    region: str
    pids: tuple[int, ...]

    def create_bucket(self, name: str) -> str:
        """Make a bucket; returns its URI."""
        import botocore.session

        client = botocore.session.get_session().create_client(
            "s3",
            region_name=self.region,
            endpoint_url=self.endpoint_url,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
        )
        client.create_bucket(Bucket=name)
        return f"s3://{name}"


@contextmanager
def running(data_dir: Path | None = None) -> Iterator[ObjectStore]:
    """Install Swift if need be, start it, wait until it answers, and stop it at the end.

    Args:
        data_dir: where objects are kept, on a file system with extended attributes. A temporary folder
            that is removed at the end when None.

    Raises:
        ObjectStoreError: it cannot be installed or does not start; with the end of the servers' logs.
    """
    binaries = ensure_installed()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="objectstore-")))
        data = data_dir.absolute() if data_dir else folder / "data"
        (data / DEVICE).mkdir(parents=True, exist_ok=True)
        _check_attributes(data)
        for attempt in range(START_ATTEMPTS):
            try:
                store = stack.enter_context(_started(binaries, folder / f"run-{attempt}", data))
                break
            except ObjectStoreError as error:
                if attempt == START_ATTEMPTS - 1 or "Address already in use" not in str(error):
                    raise
        yield store


@contextmanager
def _started(binaries: Path, folder: Path, data: Path) -> Iterator[ObjectStore]:
    folder.mkdir()
    ports = _free_ports(1 + len(BACKENDS))
    secret = secrets.token_hex(20)
    _configure(folder, data, dict(zip(("proxy", *BACKENDS), ports, strict=True)), secret)
    rings = [str(Path(__file__).with_name("rings.py")), str(folder), DEVICE, *map(str, ports[1:])]
    done = subprocess.run([str(binaries / "python"), *rings], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ObjectStoreError(f"Swift's rings could not be built:\n{done.stderr[-REASON_CHARACTERS:]}")
    processes = []
    try:
        for name in (*BACKENDS, "proxy"):
            with open(folder / f"{name}.log", "w") as log:
                command = [str(binaries / f"swift-{name}-server"), str(folder / f"{name}.conf")]
                processes.append(subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT))
        _wait_until_ready(processes, ports, folder)
        pids = tuple(process.pid for process in processes)
        yield ObjectStore(f"http://{HOST}:{ports[0]}", ACCESS_KEY, secret, REGION, pids)
    finally:
        _stop(processes)


def _configure(folder: Path, data: Path, ports: dict[str, int], secret: str) -> None:
    suffix = secrets.token_hex(8) if not (data / "hash").exists() else (data / "hash").read_text()
    (data / "hash").write_text(suffix)  # objects are found by it: it belongs to the data
    (folder / "swift.conf").write_text(
        f"[swift-hash]\nswift_hash_path_suffix = {suffix}\n[storage-policy:0]\nname = one\ndefault = yes\n"
    )
    common = (
        f"[DEFAULT]\nbind_ip = {HOST}\nworkers = 0\nuser = {getpass.getuser()}\nswift_dir = {folder}\n"
        f"devices = {data}\nmount_check = false\nlog_level = WARNING\nfallocate_reserve = 0\n"
    )
    for name in BACKENDS:
        (folder / f"{name}.conf").write_text(
            f"{common}bind_port = {ports[name]}\n[pipeline:main]\npipeline = {name}-server\n"
            f"[app:{name}-server]\nuse = egg:swift#{name}\n"
        )
    sections = "".join(
        f"[filter:{name}]\nuse = egg:swift#{name}\n{_SETTINGS.get(name, '')}" for name in FILTERS
    )
    (folder / "proxy.conf").write_text(
        f"{common}bind_port = {ports['proxy']}\n"
        f"[pipeline:main]\npipeline = {' '.join(FILTERS)} proxy-server\n"
        f"[app:proxy-server]\nuse = egg:swift#proxy\nallow_account_management = true\n"
        f"account_autocreate = true\n{sections}".replace("SECRET", secret)
    )
    (folder / "proxy.conf").chmod(0o600)


def _wait_until_ready(processes: list[subprocess.Popen[bytes]], ports: list[int], folder: Path) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while not all(_listens(port) for port in ports) or not _is_healthy(ports[0]):
        ended = any(process.poll() is not None for process in processes)
        if ended or time.monotonic() > deadline:
            logs = "".join(
                f"\n{log.name}: {log.read_text()[-REASON_CHARACTERS:]}" for log in folder.glob("*.log")
            )
            state = "ended at once" if ended else f"did not answer within {READY_TIMEOUT_S:.0f} s"
            raise ObjectStoreError(f"The S3 server {state}.{logs}")
        time.sleep(POLL_S)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def _is_healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}/healthcheck", timeout=STOP_TIMEOUT_S) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _stop(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind((HOST, 0))
        return [probe.getsockname()[1] for probe in probes]


def _check_attributes(folder: Path) -> None:
    """Swift keeps an object's metadata in extended attributes."""
    probe = folder / "probe"
    probe.touch()
    try:
        os.setxattr(probe, "user.probe", b"1")
    except OSError as error:
        raise ObjectStoreError(
            f"{folder} has no extended attributes ({error.strerror}): set TMPDIR to a folder on a disk."
        ) from error
    finally:
        probe.unlink()
