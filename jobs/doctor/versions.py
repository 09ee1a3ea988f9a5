"""`poma doctor --cluster FILE` on versions: what the file asks for that is older than what a run needs, or
another Ray than the one installed here. Only what is written in the file is looked at, never a cluster."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from jobs.doctor.finding import Finding, Level
from jobs.plan.machines import documents
from plinth.units import counted

CHECK = "versions"
NUMBER = r"v?(\d+(?:\.\d+)+)"
RAY_VERSION = "rayVersion"
"""Key of KubeRay's objects."""


class Needed(NamedTuple):
    """A part of Kubernetes that a run needs in a version."""

    name: str
    least: tuple[int, int]
    said: re.Pattern[str]
    """What names its version: an image, a chart, an address of its manifests."""
    why: str


NEEDED = (
    Needed(
        "KubeRay", (1, 7),
        re.compile(
            rf"\bkuberay/[\w-]+:{NUMBER}|\bkuberay-(?:operator|apiserver)-{NUMBER}"
            rf"|kuberay\S*\?ref={NUMBER}"
        ),
        "The manifests of infra/kuberay are written for it: a token from a secret, labels of groups, "
        "History Server.",
    ),
    Needed(
        "Kueue", (0, 16),
        re.compile(
            rf"\bkueue/kueue:{NUMBER}|\bkueue-{NUMBER}|kueue/releases/download/{NUMBER}"
            rf"|kueue\S*\?ref={NUMBER}"
        ),
        "An older one does not count a run anew that grows from fit.workers.min to max.",
    ),
)  # fmt: skip
OLD_APIS = ("kueue.x-k8s.io/v1alpha1", "kueue.x-k8s.io/v1beta1")
"""Versions of Kueue's objects that its releases from 0.20 on do not serve."""
TODAYS_API = "kueue.x-k8s.io/v1beta2"
RAY = re.compile(
    r"\brayproject/ray(?:-ml)?:(\d[\w.]*)"  # an image; its tag goes on with Python and CUDA
    r"|(?<![\w-])ray(?:\[[\w, -]+\])?\s*==\s*(\d[\w.]*)"  # a pin of pip
    r"|(?<![\w-])ray-(\d[\w.]*)-cp\d"  # a wheel
)
"""What names a version of Ray."""


def is_manifest(path: Path) -> bool:
    """Whether the file holds Kubernetes objects rather than a cluster of Ray's launcher."""
    return any(isinstance(one, dict) and {"apiVersion", "kind"} <= one.keys() for one in documents(path))


def versions(path: Path) -> Iterable[Finding]:
    """One finding for each version in the file that is stale, or one that says that none is."""
    found = list(_stale(path))
    yield from found
    if not found:
        said = f"{path.name} names no version older than needed (Ray {version('ray')})"
        yield Finding(CHECK, Level.ok, said)


def _stale(path: Path) -> Iterator[Finding]:
    texts, rays = list[str](), list[str]()
    for key, text in (leaf for document in documents(path) for leaf in _leaves(document)):
        if key == RAY_VERSION:
            rays.append(text)
        texts.append(text)
    for needed in NEEDED:
        least = ".".join(map(str, needed.least))
        for said, times in _counted(number for text in texts for number in _numbers(needed.said, text)):
            if _parts(said) < needed.least:
                yield Finding(
                    CHECK, Level.warn,
                    f"{path.name} names {needed.name} {said} ({times}); {least} is needed", needed.why,
                    f"Install {needed.name} {least} or newer, and write its version there.",
                )  # fmt: skip
    for api, times in _counted(text for text in texts if text in OLD_APIS):
        yield Finding(
            CHECK, Level.warn, f"{path.name} has objects of {api} ({times})",
            "Kueue 0.20 and newer do not know them.", f"Write {TODAYS_API}, which 0.16 knows, too.",
        )  # fmt: skip
    installed = version("ray")
    for said, times in _counted([*rays, *(number for text in texts for number in _numbers(RAY, text))]):
        if said != installed:
            yield Finding(
                CHECK, Level.warn, f"{path.name} names Ray {said} ({times}); {installed} is installed here",
                "The run is checked with another Ray than it runs on, and Ray joins no cluster of another "
                "version.",
                f"Name Ray {installed} there, or install ray=={said} here.",
            )  # fmt: skip


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """(key, text) of all texts and numbers; an image that a chart's values split is one text, too."""
    if isinstance(value, dict):
        if isinstance(value.get("repository"), str) and value.get("tag") is not None:
            yield "image", f"{value['repository']}:{value['tag']}"
        for name, below in value.items():
            yield from _leaves(below, str(name))
    elif isinstance(value, list):
        for below in value:
            yield from _leaves(below, key)
    elif value is not None and not isinstance(value, bool):
        yield key, str(value)


def _numbers(pattern: re.Pattern[str], text: str) -> Iterator[str]:
    """Each version that the pattern finds."""
    for match in pattern.finditer(text):
        yield next(group for group in match.groups() if group is not None).rstrip(".")


def _counted(said: Iterable[str]) -> list[tuple[str, str]]:
    """(text, how often) in the order of their first appearance."""
    return [(text, counted(number, "time")) for text, number in Counter(said).items()]


def _parts(said: str) -> tuple[int, ...]:
    return tuple(map(int, said.split(".")))
