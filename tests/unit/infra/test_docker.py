"""Images: nobody runs as root, nothing secret or unneeded goes in, and the locks are those of the project."""

from __future__ import annotations

import fnmatch
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from infra.docker.lock import CUDA_ONLY, EXTRA, FROM_SOURCE, LOCKS, entries, name_of
from tests.helpers.infra.dockerfile import Dockerfile, parse

ROOT = Path(__file__).parents[3]
DOCKER = ROOT / "infra" / "docker"
IMAGES = {path.stem: path for path in sorted(DOCKER.glob("*.Dockerfile"))}
by_image = pytest.mark.parametrize("image", IMAGES)
VALID = """
ARG PYTHON=3.11
FROM python:${PYTHON} AS build
ARG CUDA
RUN pip install \\
    # a comment inside
    && rm -rf /tmp/x
FROM python:${PYTHON}
COPY --from=build /opt/a /opt/a
ENV PATH=/opt/a/bin:$PATH A="b c"
USER me
CMD ["poma", "--help"]
"""


def dockerfile(image: str) -> Dockerfile:
    return parse(IMAGES[image].read_text())


def versions(*names: str) -> dict[str, Version]:
    """Version of every package of these locks."""
    found = {}
    for name in names:
        for entry in entries(LOCKS[name].read_text()):
            requirement = Requirement(entry.split("\\\n")[0].strip())
            (pin,) = requirement.specifier
            assert pin.operator == "==", entry
            found[requirement.name.lower().replace("_", "-")] = Version(pin.version)
    return found


def project_requirements() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [Requirement(t) for t in (*project["dependencies"], *project["optional-dependencies"][EXTRA])]


def test_there_is_a_dockerfile_for_each_kind_of_node() -> None:
    assert list(IMAGES) == ["cpu", "cuda"]


@by_image
def test_dockerfile_is_well_formed(image: str) -> None:
    """Instructions, stages, variables and the shell's syntax."""
    assert dockerfile(image).problems == []


@pytest.mark.parametrize(
    ("good", "bad", "problem"),
    [
        ("USER me", "USR me", "USR is no known instruction"),
        ("ARG PYTHON=3.11", "ENV PYTHON=3.11", "ENV stands before the first FROM"),
        ("--from=build", "--from=compiler", "there is no stage compiler before it"),
        ("AS build", "IS build", "expected FROM image AS name"),
        (
            "COPY --from=build /opt/a /opt/a",
            "COPY --from=build /opt/a",
            "expected a source and a destination",
        ),
        ("/opt/a /opt/a", "/opt/${CUDA} /opt/a", "CUDA is not declared here"),
        ("python:${PYTHON} AS", "python:${PITHON} AS", "PITHON is not declared here"),
        ('A="b c"', "A b", "expected NAME=VALUE"),
        ("&& rm -rf", "&& && rm -rf", "RUN pip install && && rm"),
        ('["poma", "--help"]', "poma --help", "expected a JSON list"),
    ],
)
def test_dockerfile_check_finds_what_a_builder_refuses(good: str, bad: str, problem: str) -> None:
    assert parse(VALID).problems == []
    assert good in VALID
    (found,) = parse(VALID.replace(good, bad, 1)).problems
    assert problem in found


@by_image
def test_image_does_not_run_as_root(image: str) -> None:
    last = dockerfile(image).stages[-1]
    assert [user.arguments for user in last.of("USER")] == [["poma"]]


@by_image
def test_everything_installed_is_in_a_lock_with_hashes(image: str) -> None:
    installs = [
        words[2:]
        for stage in dockerfile(image).stages
        for run in stage.of("RUN")
        for words in run.commands
        if words[:2] == ["pip", "install"]
    ]
    assert len(installs) >= 3
    for words in installs:
        assert "--no-deps" in words, words
        locked = "--require-hashes" in words and words[-2] == "-r" and words[-1].endswith(".lock")
        own = words[-2:] == ["--no-build-isolation", "."]
        assert locked or own or words[-1] == "torch==${TORCH}", words


@by_image
def test_the_tests_torch_is_the_images_torch(image: str) -> None:
    wanted = metadata.version("torch").split("+")[0]
    if image == "cpu":
        arguments = [a.variables for a in dockerfile(image).stages[0].of("ARG")]
        assert {"TORCH": wanted} in arguments
    else:
        assert str(versions("cuda")["torch"]) == wanted


@by_image
def test_base_images_are_pinned(image: str) -> None:
    for stage in dockerfile(image).stages:
        name, _, tag = stage.base.partition(":")
        assert name
        assert tag not in ("", "latest"), stage.base
        assert "$" not in tag
        assert any(c.isdigit() for c in tag), stage.base


@by_image
def test_build_context_holds_only_what_is_copied(image: str) -> None:
    lines = Path(f"{IMAGES[image]}.dockerignore").read_text().splitlines()
    ignored = [line for line in lines if line and not line.startswith("#")]
    assert ignored[0] == "*", "everything, then what is let in"
    allowed = [line[1:] for line in ignored if line.startswith("!")]
    copies = [c for stage in dockerfile(image).stages for c in stage.of("COPY") if "from" not in c.flags]
    copied = {source for copy in copies for source in copy.arguments[:-1]}
    for source in copied:
        parents = [source, *(str(parent) for parent in Path(source).parents)]
        assert any(fnmatch.fnmatch(name, pattern) for name in parents for pattern in allowed), source
    assert {a for a in allowed if not any(s.startswith(a) for s in copied)} == set(), (
        "nothing is sent for nothing"
    )


def test_operators_are_compiled_in_the_image_with_the_cuda_of_the_wheels() -> None:
    image = dockerfile("cuda")
    assert [stage.name for stage in image.stages] == ["compiler", "build", ""]
    (compiles,) = [run.text for run in image.stages[1].of("RUN") if "DS_BUILD_OPS=0" in run.text]
    assert {f"DS_BUILD_{name}=1" for name in ("FUSED_ADAM", "CPU_ADAM", "UTILS")} <= set(compiles.split())
    runtime = versions("cuda")["nvidia-cuda-runtime"]
    assert image.settings["CUDA"] == f"{runtime.major}.{runtime.minor}"
    assert image.stages[0].base.startswith(f"nvidia/cuda:{image.settings['CUDA']}.")
    nccl = versions("cuda")["nvidia-nccl-cu13"]
    assert [a.variables for a in image.stages[0].of("ARG")] == [{"NCCL": f"{nccl.major}.{nccl.minor}"}]
    copies = image.stages[-1].of("COPY")
    assert {copy.flags.get("from") for copy in copies} == {"build", "compiler", None}
    of_compiler = [copy.arguments for copy in copies if copy.flags.get("from") == "compiler"]
    assert of_compiler == [["/usr/bin/ncclras", "/usr/local/bin/ncclras"]], "no compiler on the nodes"


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


def test_every_locked_package_has_a_hash() -> None:
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
