"""What travels to the cluster: this code and the resolved job, in one archive that is the job's folder there.

    job.yaml  jobs/  plinth/  poma3d/

Ray unpacks it on every node and puts it first on Python's path, so that workers run the code that was
submitted, whatever is installed in their image. What it needs besides (torch, Ray) is in the image.
"""

from __future__ import annotations

import importlib.util
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("jobs", "plinth", "poma3d")
SUFFIXES = (".py", ".html", ".css", ".js", ".yaml")
"""Code, what pages are made of, the shipped job files."""
NAMES = ("LICENSE",)
"""Files without a suffix: the pages quote that of their library."""
JOB_FILE = "job.yaml"
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The time of every file: the same content is the same archive, which Ray then need not load again."""
MODE = 0o644 << 16


@dataclass(frozen=True)
class Package:
    """The archive."""

    path: Path
    files: int
    size_bytes: int


def build(folder: Path, job: str) -> Package:
    """Write the archive into `folder`.

    Args:
        job: the resolved job, as YAML.
    """
    path = folder / "package.zip"
    content = {JOB_FILE: job.encode(), **{name: file.read_bytes() for name, file in code()}}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sorted(content.items()):
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.external_attr, entry.compress_type = MODE, zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
    return Package(path, len(content), path.stat().st_size)


def code() -> Iterator[tuple[str, Path]]:
    """(name in the archive, file) of all code, from wherever it is imported here."""
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        root = Path(spec.origin).parent
        for file in sorted(root.rglob("*")):
            inside = file.relative_to(root)
            hidden = any(part.startswith((".", "__pycache__")) for part in inside.parts)
            if (file.suffix in SUFFIXES or file.name in NAMES) and file.is_file() and not hidden:
                yield f"{package}/{inside.as_posix()}", file
