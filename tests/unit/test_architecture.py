"""The house's one law: the platform and the model never import each other; they meet in `jobs`."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FORBIDDEN = {
    "platform/plinth": {"poma3d", "jobs", "benchmarks", "tests"},
    "poma3d": {"plinth", "ray", "deepspeed", "jobs", "benchmarks", "tests"},
    "jobs": {"benchmarks", "tests"},
}
SHARED = ("common", "display")
"""Folders of jobs/ that commands share; they import no command."""
MAX_FILES = 15
MAX_COMMON = 11
"""Files of jobs/common, so that it does not become a drawer."""
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


def module_of(path: Path) -> str:
    """The dotted name under which a file is imported."""
    relative = path.relative_to(ROOT / "platform" if "platform" in path.parts else ROOT)
    return ".".join(relative.with_suffix("").parts).removesuffix(".__init__")


def import_graph(folders: Sequence[str]) -> dict[str, set[str]]:
    """Module -> modules of the tree that it imports, imports inside functions and for types included.

    `from package import module` is an arrow to the module, `from package import name` one to the package.
    """
    files = {module_of(path): path for folder in folders for path in python_files(folder)}
    graph: dict[str, set[str]] = {}
    for module, path in files.items():
        named: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                named |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                full = {f"{node.module}.{alias.name}" for alias in node.names}
                named |= {name if name in files else node.module for name in full}
        graph[module] = (named & files.keys()) - {module}
    return graph


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other in a circle (Tarjan's strongly connected components)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        order[module] = low[module] = len(order)
        stack.append(module)
        for other in graph[module]:
            if other not in order:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in stack:
                low[module] = min(low[module], order[other])
        if low[module] == order[module]:
            group = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(group) > 1:
                found.append(sorted(group))

    for module in graph:
        if module not in order:
            visit(module)
    return found


def test_no_import_cycles() -> None:
    found = cycles(import_graph(("platform/plinth", "poma3d", "jobs", "infra", "benchmarks", "tests")))
    assert not found, "\n".join(" <-> ".join(group) for group in found)


def test_the_search_for_cycles_finds_one() -> None:
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]


def test_a_command_lives_in_its_folder() -> None:
    assert {path.name for path in (ROOT / "jobs").glob("*.py")} == {"__init__.py", "cli.py", "jobfile.py"}
    folders = {path.name for path in (ROOT / "jobs").iterdir() if (path / "__init__.py").exists()}
    without = [f for f in sorted(folders - {*SHARED}) if not (ROOT / "jobs" / f / "command.py").exists()]
    assert not without, without


@pytest.mark.parametrize("folder", SHARED)
def test_what_commands_share_imports_no_command(folder: str) -> None:
    allowed = {f"jobs.{name}" for name in SHARED}
    broken = [
        f"{module} imports {name}"
        for module, names in import_graph(("jobs",)).items()
        if module.startswith(f"jobs.{folder}")
        for name in names
        if ".".join(name.split(".")[:2]) not in allowed
    ]
    assert not broken, broken


def test_folders_stay_small() -> None:
    folders: dict[Path, int] = {}
    for folder in (*FORBIDDEN, "benchmarks", "infra", "tests", "examples"):
        for path in python_files(folder):
            folders[path.parent] = folders.get(path.parent, 0) + 1
    large = [f"{folder.relative_to(ROOT)} {count}" for folder, count in folders.items() if count > MAX_FILES]
    assert not large, large
    assert folders[ROOT / "jobs/common"] <= MAX_COMMON


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


def test_test_files_have_names_of_their_own() -> None:
    """Pytest imports them by name: of two, one is not run."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert not {name for name in names if names.count(name) > 1}
