"""A virtual environment with the wheel and what it asks for, and nothing else of this one.

Installing torch takes minutes and gigabytes, so its files and those of the others are links to where they are
installed here. The wheel is built from the working tree and installed by pip.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from importlib import metadata
from pathlib import Path

from tests.helpers.wheel.requirements import ROOT, model_alone

PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")
OFFLINE = ("--no-deps", "--no-index", "--quiet")


def make(folder: Path) -> Path:
    """The environment in `folder`/venv; returns its Python."""
    _call(*PIP, "wheel", *OFFLINE, "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT))
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "venv", symlinks=True, with_pip=False)
    (packages,) = (folder / "venv" / "lib").glob("python*/site-packages")
    for name in model_alone():
        _link(metadata.distribution(name), packages)
    python = folder / "venv" / "bin" / "python"
    _call(*PIP, "--python", str(python), "install", *OFFLINE, "--no-compile", str(wheel))
    return python


def _link(distribution: metadata.Distribution, packages: Path) -> None:
    """Link the top-level files and folders of a distribution."""
    tops = {file.parts[0] for file in distribution.files or [] if file.parts[0] not in ("..", "__pycache__")}
    assert tops, f"{distribution.name} has no list of its files"
    for top in tops:
        link = packages / top
        if not link.exists():
            link.symlink_to(Path(str(distribution.locate_file(top))).resolve())


def _call(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
