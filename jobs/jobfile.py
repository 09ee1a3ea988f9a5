"""Job files: which command one is for, and the job in it as that command's typed config.

The file is parsed once (`read`); the secrets check, the kind and the job all come from that one parse.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig

from jobs.common.run_layout import CONFIGS, is_folder_name
from jobs.common.secrets import refuse_secret_overrides, refuse_secrets
from plinth import config, plugins
from plinth.data.manifest import VERSION_MARK, split_version
from plinth.errors import ConfigError, PlinthError, raise_together
from plinth.locations import RESULT, at_home, locations, names_folder
from plinth.schema import MISSING

T = TypeVar("T")

TEACHER = "teacher"
SHIPPED_MARK = "@"
"""A job file of this package from any folder: @pretrain is jobs/configs/pretrain.yaml."""

SCHEMAS: dict[str, str] = {
    "ingest": "jobs.ingest.config:IngestJob",
    "lift": "jobs.lift.config:LiftJob",
    "caption": "jobs.caption.config:CaptionJob",
    "embed": "jobs.embed.config:EmbedJob",
    "pretrain": "jobs.pretrain.config:PretrainJob",
    "evaluate": "jobs.evaluate.config:EvaluateJob",
    "features": "jobs.features.config:FeaturesJob",
    "finetune": "jobs.finetune.config:FinetuneJob",
    "finetune_llm": "jobs.finetune.llm.config:FinetuneLlmJob",
    "generate": "jobs.generate.config:GenerateJob",
    "export": "jobs.export.config:ExportJob",
    "sweep": "jobs.sweep.config:SweepJob",
    "sweep_finetune": "jobs.sweep.config:HeadSweepJob",
    "demo": "jobs.demo.config:DemoJob",
}
"""Kind of a job -> where its schema is. Opened when it is needed: some import much."""


COMMANDS = {"sweep_finetune": "sweep", "finetune_llm": "finetune"}
"""Kind of a job -> its command, where that has another name."""


def command_of(kind: str) -> str:
    """The command that a kind of job is for."""
    return COMMANDS.get(kind, kind)


@dataclass(frozen=True)
class JobFile:
    """A job file that was read and holds no secret, not yet compared with a schema."""

    path: Path
    kind: str
    raw: DictConfig

    def resolve(self, schema: type[T], overrides: Sequence[str] = ()) -> T:
        """The job as a config of `schema`, with overrides.

        Raises:
            ConfigError: a job of another kind, an override of the kind, a secret in an override, an output
                that is empty or a version, or what `plinth.config.resolve` refuses.
        """
        if self.kind != schema.kind:  # type: ignore[attr-defined]
            command = command_of(self.kind)
            problem = f"{self.path} is a job for `poma {command}`."
            raise ConfigError(problem, f"Run `poma {command} {self.path}`.")
        for override in overrides:
            key, _, kind = override.partition("=")
            if key.strip() == "kind" and kind.strip() != self.kind:
                problem = f"'{override}': the kind of {self.path} is {self.kind}, which no override changes."
                raise ConfigError(problem, "Leave it off.")
        refuse_secret_overrides(overrides)
        overrides = [*_of_another_teacher(overrides), *overrides]
        try:
            job = at_home(config.resolve(schema, self.raw, str(self.path), overrides))
        except config.MissingValues as error:
            self._also_wrong(error)
            raise
        for check in self._checks(job):
            check()
        return job

    def _checks(self, job: object) -> list[Callable[[], object]]:
        """What is looked at in every job, complete or not."""
        origin = str(self.path)
        return [
            partial(plugins.complete, job),
            partial(_check_results, job, origin),
            partial(_check_run_names, job, origin),
        ]

    def _also_wrong(self, error: config.MissingValues) -> None:
        """Say with a missing value what else can be said of the job without it.

        Raises:
            SeveralErrors: there is something.
        """
        if error.rest is None:
            return
        error.rest = at_home(error.rest)
        checks = self._checks(error.rest)
        if callable(own := getattr(error.rest, "validate", None)):
            checks.append(own)
        with_others(error, checks)


def with_others(error: config.MissingValues, checks: Iterable[Callable[[], object]]) -> None:
    """Run checks of a job in which values are missing; what is open is said first.

    Raises:
        SeveralErrors: a check fails.
    """

    def first() -> None:
        raise error

    def only_of_given(check: Callable[[], object]) -> None:
        try:
            check()
        except PlinthError as other:
            if MISSING not in str(other):  # else it is about what is open
                raise

    with suppress(config.MissingValues):
        raise_together([first, *(partial(only_of_given, check) for check in checks)])


def _of_another_teacher(overrides: Sequence[str]) -> list[str]:
    """The overrides that go with a local folder as teacher: `revision` and `trust_remote_code` of the job
    file belong to the teacher that the file names, not to this one."""
    found = []
    for override in overrides:
        key, _, value = override.partition("=")
        section, _, name = key.strip().rpartition(".")
        source = value.strip()
        if (
            name == "source"
            and section.split(".")[-1] == TEACHER
            and source
            and (names_folder(source) or Path(source).is_dir())
        ):
            found += [f"{section}.revision=null", f"{section}.trust_remote_code=false"]
    return found


def _check_results(job: object, origin: str) -> None:
    """Refuse a place for a result that is empty, or whose name would be read as that of a version.

    Raises:
        ConfigError: naming it.
    """
    for uri in locations(job, RESULT):
        if not uri.strip():  # Path("") is the folder that the command was started in
            problem = f"{origin}: the place for the result is empty."
            raise ConfigError(problem, "Name a folder or URI; `.` is the folder that you are in.")
        folder, version = split_version(uri)
        if version is not None:
            raise ConfigError(
                f"{origin}: {uri} is read as version {version} of the data set {folder}, so nothing can be "
                "written there.",
                f"Leave out {VERSION_MARK}{version}.",
            )


def _check_run_names(job: object, origin: str) -> None:
    """Refuse a run's name that is no name of a folder below the output.

    Raises:
        ConfigError: naming its key.
    """
    for section, key in ((job, "name"), (getattr(job, "pretrain", None), "pretrain.name")):
        name = getattr(section, "name", None)
        if isinstance(name, str) and not is_folder_name(name):
            raise ConfigError(
                f"{origin}: {key} is {name!r}, which names no folder of its own below the output.",
                "Use letters, digits, - and _.",
            )


def shipped() -> list[str]:
    """The shipped jobs by their names on a command line."""
    return sorted(f"{SHIPPED_MARK}{path.stem}" for path in CONFIGS.glob("*.yaml"))


def place(path: Path) -> Path:
    """Where a job file lies that a command line names: `@NAME` is a shipped one.

    Raises:
        ConfigError: no shipped job has that name.
    """
    name = str(path)
    if not name.startswith(SHIPPED_MARK) or path.is_file():
        at_hand = f"{SHIPPED_MARK}{path.stem}"
        if not path.exists() and path.suffix == ".yaml" and at_hand in shipped():
            raise ConfigError(f"{path}: no such job file.", f"The shipped one is {at_hand}, in any folder.")
        return path
    if name not in shipped():
        close = difflib.get_close_matches(name, shipped(), n=1)
        raise ConfigError(
            f"{name} is no shipped job.",
            f"Did you mean {close[0]}?" if close else f"There are: {', '.join(shipped())}.",
        )
    return CONFIGS / f"{name.removeprefix(SHIPPED_MARK)}.yaml"


def read(path: Path) -> JobFile:
    """Parse a job file, once.

    Raises:
        ConfigError: no job file, a kind that is none, or a secret in it.
    """
    path = place(path)
    raw = config.read(path)
    refuse_secrets(raw, str(path))
    kind = raw.get("kind")
    if not isinstance(kind, str) or kind not in SCHEMAS:
        problem = f"{path} has no kind." if kind is None else f"{path}: kind is {kind!r}."
        raise ConfigError(problem, f"Say which job it is, as `kind: NAME`: one of {', '.join(SCHEMAS)}.")
    return JobFile(path, kind, raw)


def load(schema: type[T], path: Path, overrides: Sequence[str] = ()) -> T:
    """The job of a file that must be for the command of `schema`.

    Raises:
        ConfigError: what `read` and `JobFile.resolve` refuse.
    """
    return read(path).resolve(schema, overrides)


def asked(schema: type[T], arguments: argparse.Namespace) -> T:
    """The job that a command line names, with its overrides; see `load`."""
    return load(schema, arguments.job, arguments.overrides)


def open_schema(kind: str) -> type[Any]:
    """The schema of a kind of job."""
    module, _, name = SCHEMAS[kind].partition(":")
    return getattr(import_module(module), name)
