"""Images: nobody runs as root, nothing secret or unneeded goes in, and the locks are those of the project."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from infra.docker.lock import CUDA_ONLY, FROM_SOURCE, LOCKS, entries, name_of

ROOT = Path(__file__).parents[3]
DOCKER = ROOT / "infra" / "docker"
FILES = sorted(DOCKER.glob("*.Dockerfile"))
LOCKED = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^ ;]+)")
by_file = pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)


def instructions(path: Path) -> list[str]:
    """Logical lines without comments."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    return [" ".join(line.split()) for line in "\n".join(lines).replace("\\\n", " ").splitlines() if line]


def versions(*names: str) -> dict[str, Version]:
    found = {}
    for name in names:
        for entry in entries(LOCKS[name].read_text()):
            match = LOCKED.match(entry)
            assert match, entry
            found[match[1].lower().replace("_", "-")] = Version(match[2])
    return found


def project_requirements() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [Requirement(text) for text in project["dependencies"]]


def test_there_is_one_for_each_kind_of_node() -> None:
    assert [path.stem for path in FILES] == ["cpu", "cuda"]


@by_file
def test_nobody_runs_as_root(path: Path) -> None:
    last = [line for line in instructions(path) if line.startswith(("FROM ", "USER "))]
    assert last[-1] == "USER poma", "after the last FROM"


@by_file
def test_everything_installed_is_in_a_lock_with_hashes(path: Path) -> None:
    installs = [c for line in instructions(path) for c in line.split("&&") if "pip install" in c]
    assert len(installs) >= 3
    for command in installs:
        locked = "--require-hashes" in command and "requirements-" in command
        own = command.strip().endswith("--no-build-isolation .")
        assert locked or own or "torch==${TORCH}" in command, command
        assert "--no-deps" in command, command


@by_file
def test_the_tests_torch_is_the_images_torch(path: Path) -> None:
    wanted = metadata.version("torch").split("+")[0]
    if path.stem == "cpu":
        assert f"ARG TORCH={wanted}" in path.read_text()
    else:
        assert str(versions("cuda")["torch"]) == wanted


@by_file
def test_bases_are_pinned_and_the_build_context_is_small(path: Path) -> None:
    for line in instructions(path):
        if line.startswith("FROM "):
            assert ":" in line, line
            assert ":latest" not in line, line
    ignored = Path(f"{path}.dockerignore").read_text().splitlines()
    assert ignored[1] == "*", "everything, then what is let in"
    copied = {
        w
        for line in instructions(path)
        if line.startswith("COPY ") and "--from" not in line
        for w in line.split()[1:-1]
    }
    allowed = [line[1:] for line in ignored if line.startswith("!")]
    for source in copied:
        if not source.startswith("--"):
            assert any(source.startswith(a) or a == source for a in allowed), source


def test_operators_are_compiled_in_the_image_with_the_cuda_of_the_wheels() -> None:
    text = (DOCKER / "cuda.Dockerfile").read_text()
    assert all(f"DS_BUILD_{name}=1" in text for name in ("FUSED_ADAM", "CPU_ADAM", "UTILS"))
    compiler = re.search(r"ARG CUDA=(\d+\.\d+)", text)
    runtime = versions("cuda")["nvidia-cuda-runtime"]
    assert compiler
    assert compiler[1] == f"{runtime.major}.{runtime.minor}"
    final = text[text.rindex("\nFROM ") :]
    assert "--from=compiler" not in final, "no compiler on the nodes"


def test_the_locks_hold_what_the_project_asks_for() -> None:
    both = {"cuda": versions("cuda", "build"), "cpu": versions("cpu", "build")}
    for requirement in project_requirements():
        for kind, locked in both.items():
            if kind == "cpu" and requirement.name == "torch":
                continue
            found = locked.get(requirement.name.lower())
            assert found is not None, f"{requirement.name}: run `python -m infra.docker.lock`"
            assert found in requirement.specifier, f"{requirement}: run `python -m infra.docker.lock`"


def test_the_locks_hold_the_versions_that_the_tests_ran_with() -> None:
    locked = versions("cpu", "build")
    for requirement in project_requirements():
        if requirement.name != "torch" and "==" in str(requirement.specifier):
            assert str(locked[requirement.name.lower()]) == metadata.version(requirement.name)


def test_every_entry_has_a_hash() -> None:
    for path in LOCKS.values():
        bare = [name_of(entry) for entry in entries(path.read_text()) if "--hash=sha256:" not in entry]
        assert not bare
        assert "://" not in path.read_text(), "no index of anybody's is written down"


def test_the_cpu_lock_is_the_cuda_lock_without_cuda() -> None:
    cuda, cpu = versions("cuda"), versions("cpu")
    left_out = set(cuda) - set(cpu)
    assert cpu.items() <= cuda.items()
    assert "torch" in left_out
    assert all(name == "torch" or name.startswith(CUDA_ONLY) for name in left_out)
    assert set(versions("build")) == set(FROM_SOURCE)


@pytest.mark.skipif(shutil.which("sh") is None, reason="no shell")
@by_file
def test_shell_of_the_run_lines_parses(path: Path) -> None:
    for line in instructions(path):
        if line.startswith("RUN "):
            done = subprocess.run(["sh", "-n", "-c", line[4:]], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
