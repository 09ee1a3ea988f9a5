"""What a machine says of itself: its packages, clock, shared memory and compiled ops."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import runpy
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("torch", "ray", "deepspeed", "pyarrow", "s3fs", "transformers", "numpy")
SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class NodeFacts:
    """The facts of one machine."""

    versions: dict[str, str]
    time: float
    shared_bytes: int
    """Shared memory that is free."""
    prebuilt_ops: list[str]


def facts() -> NodeFacts:
    """The facts of this machine."""
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    return NodeFacts(versions, time.time(), shared_bytes(), prebuilt_ops())


def shared_bytes() -> int:
    """Shared memory that is free."""
    return shutil.disk_usage(SHARED_MEMORY).free if SHARED_MEMORY.is_dir() else 0


def prebuilt_ops() -> list[str]:
    """DeepSpeed's ops that were compiled when it was installed; read without importing it."""
    found = importlib.util.find_spec("deepspeed")
    record = Path(found.origin or "").with_name("git_version_info_installed.py") if found else None
    if record is None or not record.is_file():
        return []
    return sorted(name for name, built in runpy.run_path(str(record))["installed_ops"].items() if built)
