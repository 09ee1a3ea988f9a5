"""What the wheel asks for: the distributions of the model alone, and those that only the platform has."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def model_alone() -> set[str]:
    """Names of the distributions that the wheel without extras installs, with what they need in turn, as far
    as they are installed here."""
    return _closure(PROJECT["dependencies"])


def platform_modules() -> set[str]:
    """Top-level modules that only the extra `platform` brings."""
    names = {
        canonicalize_name(Requirement(text).name) for text in PROJECT["optional-dependencies"]["platform"]
    }
    only = names - model_alone()
    found = {
        module
        for module, owners in metadata.packages_distributions().items()
        if {canonicalize_name(owner) for owner in owners} & only
    }
    assert {"ray", "deepspeed", "pyarrow", "omegaconf", "peft"} <= found
    return found


def _closure(requirements: Iterable[str]) -> set[str]:
    found: set[tuple[str, str]] = set()
    """Distributions, each with one of the extras that are asked of it; the empty one for none."""
    waiting = [(Requirement(text), "") for text in requirements]
    while waiting:
        requirement, of_extra = waiting.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": of_extra}):
            continue
        try:
            wanted = metadata.distribution(requirement.name).requires or []
        except metadata.PackageNotFoundError:  # a CUDA library of torch, where torch is built for CPUs
            continue
        new = {(canonicalize_name(requirement.name), extra) for extra in ("", *requirement.extras)} - found
        found |= new
        waiting += [(Requirement(text), extra) for _, extra in new for text in wanted]
    return {name for name, _ in found}
