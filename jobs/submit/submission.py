"""A job on its way to a cluster: resolved, with absolute paths, checked from here, and with a name there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.jobfile import command_of, open_schema, read
from jobs.pretrain.check import check as check_run
from jobs.pretrain.resolve import resolve as resolve_run
from plinth import config
from plinth.digests import text_digest
from plinth.errors import ConfigError, StorageError
from plinth.locations import RESULT, absolute, is_local, locations
from plinth.storage import Storage
from plinth.storage.options import validate

RUN = "pretrain"
"""The kind whose result is a run: checked whole, stopped with a checkpoint, rendered for Kubernetes."""
NOT_SUBMITTED = {"demo": "Its steps are: poma ingest, poma embed, poma pretrain, poma evaluate."}
SLUG_CHARS = 24


@dataclass(frozen=True)
class Submission:
    """A job that may be sent."""

    kind: str
    job: Any
    uri: str
    """Where its result goes: for a run, the run's folder."""
    name: str
    """Name of the result on any cluster: the same for every submission of it."""
    has_local_paths: bool
    """Whether it names folders of a machine, which are then the nodes' own."""

    @property
    def text(self) -> str:
        """The job file that is sent."""
        return config.to_yaml(self.job)

    def command(self, job_file: str, accept_changes: bool) -> str:
        """What the cluster runs, the job file being there."""
        return f"poma {command_of(self.kind)} {job_file}" + (" --accept-changes" if accept_changes else "")


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
    job: Any = absolute(file.resolve(schema, overrides))
    if getattr(getattr(job, "ray", None), "address", None) not in (None, "auto"):
        raise ConfigError(
            f"{path}: ray.address is {job.ray.address}, but a submitted job joins the cluster it is sent to.",
            "Leave ray.address empty.",
        )
    uri = _result(job)
    has_local_paths = any(is_local(path) and Path(path).is_absolute() for path in locations(job))
    digest = text_digest(uri, 4)
    slug = re.sub(r"[^a-z0-9]+", "-", getattr(job, "name", kind).lower())[:SLUG_CHARS].strip("-")
    return Submission(kind, job, uri, f"poma-{slug}-{digest}", has_local_paths)


def check(submission: Submission, accept_changes: bool) -> None:
    """Find what can be found from here before anything is sent: for a run all that `poma pretrain` looks at.

    Raises:
        PlinthError: the first mistake.
    """
    job = submission.job
    try:
        validate(job.storage)
        if submission.kind == RUN:
            check_run(job, resolve_run(job, accept_changes))
        elif callable(own := getattr(job, "validate", None)):
            own()
    except StorageError as error:
        raise StorageError(
            error.problem, f"{error.fix} If only the cluster reaches it, add --skip-check.".strip()
        ) from None


def _result(job: Any) -> str:
    """Where the result of a job goes."""
    uri = locations(job, RESULT)[0]
    storage = Storage.from_uri(uri, job.storage)
    name = getattr(job, "name", None)
    return storage.child(name).uri if name else storage.uri
