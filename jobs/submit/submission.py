"""A job on its way to a cluster: resolved, with absolute paths, checked from here, and with a name there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.jobfile import open_schema, read
from jobs.pretrain import command as pretrain
from plinth import config
from plinth.digests import text_digest
from plinth.errors import ConfigError, StorageError
from plinth.storage import Storage
from plinth.storage.options import validate

RUN = "pretrain"
"""The kind whose result is a run: checked whole, stopped with a checkpoint, rendered for Kubernetes."""
NOT_SUBMITTED = {"demo": "Its steps are: poma ingest, poma embed, poma pretrain, poma evaluate."}
URI_KEYS = frozenset(
    {
        "output", "uri", "images_uri", "root", "start", "run", "data", "annotations", "view_captions_file",
        "scene_captions_file",
    }
)  # fmt: skip
"""Keys of all kinds of jobs that hold a path or URI."""
MODELS = frozenset({"teacher", "lifter", "captioner"})
"""Sections whose `source` is a folder, a URI or a hub id."""
RESULT_KEYS = ("output", "data", "run")
"""Where the result of a job goes: the first of them that it has."""
SLUG_CHARS = 24


@dataclass(frozen=True)
class Submission:
    """A job that may be sent."""

    kind: str
    job: Any
    uri: str
    """Where its result goes: for a run, the run's folder."""
    name: str
    """Of the result on any cluster: the same for every submission of it."""
    has_local_paths: bool
    """Whether it names folders of a machine, which are then the nodes' own."""

    @property
    def text(self) -> str:
        """The job file that is sent."""
        return config.to_yaml(self.job)

    def command(self, job_file: str, accept_changes: bool) -> str:
        """What the cluster runs, the job file being there."""
        return f"poma {self.kind} {job_file}" + (" --accept-changes" if accept_changes else "")


def resolve(path: Path, overrides: Sequence[str]) -> Submission:
    """Read a job file of any kind that can be submitted.

    Raises:
        ConfigError: what `poma config` would say, or a job that has a cluster already.
    """
    file = read(path)
    kind = file.kind
    if kind in NOT_SUBMITTED:
        raise ConfigError(f"{path}: a {kind} is not submitted.", NOT_SUBMITTED[kind])
    schema = open_schema(kind)
    plain = config.to_dict(file.resolve(schema, overrides))
    local: list[str] = []
    job: Any = config.build(schema, [(str(path), _absolute(plain, local))])
    if getattr(getattr(job, "ray", None), "address", None) not in (None, "auto"):
        raise ConfigError(
            f"{path}: ray.address is {job.ray.address}, but a submitted job joins the cluster it is sent to.",
            "Leave ray.address empty.",
        )
    uri = _result(job)
    digest = text_digest(uri, 4)
    slug = re.sub(r"[^a-z0-9]+", "-", getattr(job, "name", kind).lower())[:SLUG_CHARS].strip("-")
    return Submission(kind, job, uri, f"poma-{slug}-{digest}", bool(local))


def check(submission: Submission, accept_changes: bool) -> None:
    """Find what can be found from here before anything is sent: for a run all that `poma pretrain` looks at.

    Raises:
        PlinthError: the first mistake.
    """
    job = submission.job
    try:
        validate(job.storage)
        if submission.kind == RUN:
            pretrain.prepare(job, accept_changes)
        elif callable(own := getattr(job, "validate", None)):
            own()
    except StorageError as error:
        raise StorageError(
            error.problem, f"{error.fix} If only the cluster reaches it, add --skip-check.".strip()
        ) from None


def _absolute(plain: dict[str, Any], local: list[str]) -> dict[str, Any]:
    """The same job for a process in another folder; `local` gets the paths of this machine."""

    def kept(path: Path) -> str:
        local.append(str(path.expanduser().absolute()))
        return local[-1]

    def walk(value: Any, key: str, above: str) -> Any:
        if isinstance(value, dict):
            return {name: walk(below, name, key) for name, below in value.items()}
        if isinstance(value, list):
            return [walk(below, key, above) for below in value]
        if not isinstance(value, str) or not value or "://" in value:
            return value
        is_model = key == "source" and above in MODELS and Path(value).is_dir()
        return kept(Path(value)) if key in URI_KEYS or is_model else value

    changed: dict[str, Any] = walk(plain, "", "")
    return changed


def _result(job: Any) -> str:
    """Where the result of a job goes."""
    uri = next(found for key in RESULT_KEYS if (found := getattr(job, key, None)))
    storage = Storage.from_uri(uri, job.storage)
    name = getattr(job, "name", None)
    return storage.child(name).uri if name else storage.uri
