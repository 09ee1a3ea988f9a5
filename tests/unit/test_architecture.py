"""The house's one law: the platform and the model never import each other; they meet in `jobs`."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FORBIDDEN = {
    "platform/plinth": {"poma3d", "jobs", "benchmarks", "tests"},
    "poma3d": {"plinth", "ray", "deepspeed", "jobs", "benchmarks", "tests"},
    "jobs": {"benchmarks", "tests"},
}
# Floors inside the platform: a module imports from its own floor or below, never from above.
FLOORS = {
    "errors": 0, "redaction": 0, "config": 1, "files": 1, "lock": 1, "storage": 1, "storage_attempts": 1,
    "storage_errors": 1, "storage_options": 1, "telemetry": 1, "world": 1,
    "data": 2, "train": 3, "fit": 4, "fit_ray": 4, "elastic": 4, "room": 4,
    "sweep": 5, "submit": 5, "doctor": 5, "runs": 5,
}  # fmt: skip
MAX_LINES = 400


def python_files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield node.lineno, node.module
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_the_one_law(folder: str) -> None:
    files = python_files(folder)
    assert files, f"{folder} has no Python files: has it moved?"
    broken = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in files
        for line, name in imports(path)
        if name.split(".")[0] in FORBIDDEN[folder]
    ]
    assert not broken, broken


def test_floors_of_the_platform() -> None:
    broken = []
    for path in python_files("platform/plinth"):
        room = path.relative_to(ROOT / "platform/plinth").parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        assert room in FLOORS, f"{path}: give the new room a floor"
        for line, name in imports(path):
            parts = name.split(".")
            if parts[0] == "plinth" and len(parts) > 1 and FLOORS.get(parts[1], 0) > FLOORS[room]:
                broken.append(f"{path.relative_to(ROOT)}:{line} imports {name} from a floor above")
    assert not broken, broken


def test_platform_is_a_source_root_not_a_package() -> None:
    assert not (ROOT / "platform/__init__.py").exists(), "it would shadow the standard library's platform"
    assert not list((ROOT / "platform").rglob("test_*.py"))


def test_rooms_stay_small() -> None:
    files = [p for folder in (*FORBIDDEN, "benchmarks", "infra", "tests") for p in python_files(folder)]
    long = [f"{p.relative_to(ROOT)} {n}" for p in files if (n := len(p.read_text().splitlines())) > MAX_LINES]
    assert not long, long


def test_the_model_needs_no_platform() -> None:
    """Importing all of poma3d in a fresh interpreter loads neither Ray nor DeepSpeed nor the platform."""
    names = [".".join(p.relative_to(ROOT).with_suffix("").parts) for p in python_files("poma3d")]
    code = (
        "import importlib, sys\n"
        f"[importlib.import_module(n) for n in {[n.removesuffix('.__init__') for n in names]}]\n"
        "loaded = {m.split('.')[0] for m in sys.modules}\n"
        "sys.exit(' '.join(loaded & {'ray', 'deepspeed', 'plinth', 'jobs'}) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
