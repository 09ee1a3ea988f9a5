"""Installs what the tests run beside the checkout's own environment into one of its own, once."""

from __future__ import annotations

import fcntl
import hashlib
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
ENVIRONMENT = Path(__file__).parents[2] / ".venv-objectstore"
INSTALL_TIMEOUT_S = 600.0
REASON_CHARACTERS = 2000


class ObjectStoreError(RuntimeError):
    """The server could not be installed or started; the message carries the reason."""


def ensure_installed(requirements: Path = REQUIREMENTS, environment: Path = ENVIRONMENT) -> Path:
    """The environment's `bin` folder, installed now unless the same requirements are there already.

    Args:
        requirements: the S3 server's when not given.
        environment: folder of the virtual environment.

    Raises:
        ObjectStoreError: pip failed; with the end of its output.
    """
    wanted = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()
    marker = environment / "installed"  # written last: half an installation has none
    with _one_at_a_time(environment):
        if not marker.is_file() or marker.read_text() != wanted:
            venv.create(environment, clear=True, with_pip=True)
            command = [str(environment / "bin" / "pip"), "install", "--quiet", "-r", str(requirements)]
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False
            )
            if done.returncode:
                raise ObjectStoreError(
                    f"{environment.name} could not be installed: pip cannot reach its registry, or it has no "
                    f"{', '.join(_names(requirements))}. The end of pip's output:\n"
                    f"{done.stderr[-REASON_CHARACTERS:]}"
                )
            marker.write_text(wanted)
    return environment / "bin"


def _names(requirements: Path) -> list[str]:
    lines = requirements.read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


@contextmanager
def _one_at_a_time(environment: Path) -> Iterator[None]:
    """Two test runs that start together must not install into the same folder."""
    name = hashlib.sha256(str(environment).encode()).hexdigest()[:16]
    with open(Path(tempfile.gettempdir(), f"objectstore-{name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
