"""A real full disk: a megabyte of memory mounted in a name space of its own, and what storage does there.

    python -m tests.helpers.full_disk FOLDER BIG        inside `unshare -Urm`; FOLDER is empty, BIG is new

Prints a line for each operation: its name, its seconds and what the user is told. `run` does it all.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from plinth.errors import StorageError
from plinth.storage import Storage

ROOT = Path(__file__).parents[2]
BIG_BYTES = 2 << 20


def run(folder: Path, module: str = "tests.helpers.full_disk") -> list[list[str]] | None:
    """[operation, seconds, message] of each operation; None where this machine forbids such mounts.

    Args:
        folder: empty; the disk is mounted in it.
        module: what is run; it mounts the disk.
    """
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-Urm", "true"], check=False).returncode:
        return None
    (folder / "disk").mkdir()
    command = [sys.executable, "-m", module, str(folder / "disk"), str(folder / "big")]
    done = subprocess.run(
        [unshare, "-Urm", *command],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "platform"), str(ROOT)])},
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return [line.split("\t") for line in done.stdout.splitlines()]


def mount(folder: Path) -> None:
    """A megabyte of memory at a folder."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)], check=True)


def fill(path: Path) -> None:
    """Write to a file until the disk is full."""
    with contextlib.suppress(OSError), path.open("ab", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def main(folder: Path, big: Path) -> None:
    """Fill the disk in every way that storage writes to one; nothing may be left behind."""
    mount(folder)
    content = bytes(BIG_BYTES)
    big.write_bytes(content)
    small = Storage.from_uri(folder / "run")
    small.write("kept", b"kept")
    operations = {
        "write": lambda: small.write("kept", content),
        "create": lambda: small.create("new", content),
        "upload": lambda: small.upload(big, "new"),
        "download": lambda: Storage.from_uri(big.parent).download(big.name, folder / "run" / "new"),
    }
    for name, operation in operations.items():
        started = time.perf_counter()
        try:
            operation()
        except StorageError as error:
            print(name, f"{time.perf_counter() - started:.2f}", error, sep="\t")  # noqa: T201
    left = sorted(path.name for path in (folder / "run").iterdir())
    if small.read("kept") != b"kept" or left != ["kept"]:
        raise RuntimeError(f"left behind: {left}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
