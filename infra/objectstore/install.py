"""Installs Swift into `.venv-objectstore` beside the checkout's own environment, once."""

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


def ensure_installed() -> Path:
    """The environment's `bin` folder, installed now unless the same requirements are there already.

    Raises:
        ObjectStoreError: pip failed; with the end of its output.
    """
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()
    marker = ENVIRONMENT / "installed"  # written last: half an installation has none
    with _one_at_a_time():
        if not marker.is_file() or marker.read_text() != wanted:
            venv.create(ENVIRONMENT, clear=True, with_pip=True)
            command = [str(ENVIRONMENT / "bin" / "pip"), "install", "--quiet", "-r", str(REQUIREMENTS)]
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False
            )
            if done.returncode:
                raise ObjectStoreError(
                    "The S3 server could not be installed: pip cannot reach its registry, or that has no "
                    f"{', '.join(_names())}. The end of pip's output:\n{done.stderr[-REASON_CHARACTERS:]}"
                )
            marker.write_text(wanted)
    return ENVIRONMENT / "bin"


def _names() -> list[str]:
    lines = REQUIREMENTS.read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Two test runs that start together must not install into the same folder."""
    name = hashlib.sha256(str(ENVIRONMENT).encode()).hexdigest()[:16]
    with open(Path(tempfile.gettempdir(), f"objectstore-{name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
