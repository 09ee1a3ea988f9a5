"""Checkpoints as files in storage: listed, committed, verified, fetched and retired.

A checkpoint is a folder step-NNNNNNNN whose COMMIT.json, written last, has the size and SHA-256 of every
other file in it. Without that record it is ignored; if a file does not match, it is skipped.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
import socket
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from plinth.errors import CheckpointError, ConfigError
from plinth.storage import Storage
from plinth.train.process import on_all_ranks
from plinth.world import World

FORMAT_VERSION = 1
COMMIT_KEY, STATE_KEY = "COMMIT.json", "state.json"
FOLDER_PATTERN = re.compile(r"step-(\d{8})")
HASH_BLOCK_BYTES = 1 << 20

log = logging.getLogger(__name__)


@dataclass
class CheckpointConfig:
    """When checkpoints are written, and how many are kept."""

    every_steps: int = 500
    """Steps between two checkpoints; the last step always has one."""
    keep_last: int = 3
    """Older ones are deleted once a newer one is committed; 0 keeps all."""

    def validate(self) -> None:
        """Refuse values out of range.

        Raises:
            ConfigError: naming the key.
        """
        if self.every_steps < 1:
            raise ConfigError(f"checkpoint.every_steps is {self.every_steps}, expected 1 or more.")
        if self.keep_last < 0:
            raise ConfigError(f"checkpoint.keep_last is {self.keep_last}, expected 0 or more.")


@dataclass(frozen=True)
class CheckpointInfo:
    """One checkpoint in storage."""

    step: int
    name: str
    size_bytes: int
    is_committed: bool


def list_checkpoints(storage: Storage) -> list[CheckpointInfo]:
    """All checkpoints below `storage`, whole or not, by step."""
    files: dict[str, dict[str, int]] = {}
    for key, size in storage.list():
        name, _, file = key.partition("/")
        if FOLDER_PATTERN.fullmatch(name) and file:
            files.setdefault(name, {})[file] = size
    return [
        CheckpointInfo(int(name.removeprefix("step-")), name, sum(found.values()), COMMIT_KEY in found)
        for name, found in sorted(files.items())
    ]


def latest(storage: Storage) -> int | None:
    """Step of the newest committed checkpoint."""
    steps = [info.step for info in list_checkpoints(storage) if info.is_committed]
    return max(steps, default=None)


def read_state(storage: Storage, step: int | None = None) -> dict[str, Any]:
    """`state.json` of a committed checkpoint, the newest when `step` is None.

    Raises:
        CheckpointError: there is none.
    """
    found = latest(storage) if step is None else step
    if found is None or found not in [i.step for i in list_checkpoints(storage) if i.is_committed]:
        raise no_such(storage, step)
    text = storage.read(f"{folder_name(found)}/{STATE_KEY}")
    try:
        state: dict[str, Any] = json.loads(text)
    except ValueError as error:
        raise CheckpointError(
            f"{storage.uri}/{folder_name(found)}/{STATE_KEY} cannot be read.",
            "Restore or remove the checkpoint.",
        ) from error
    return state


def folder_name(step: int) -> str:
    """Where the checkpoint of `step` lies."""
    return f"step-{step:08d}"


def commit(storage: Storage, step: int, files: dict[str, dict[str, Any]]) -> None:
    """Make the checkpoint of `step` count.

    Args:
        files: name -> `fingerprint` of everything that the ranks have uploaded.

    Raises:
        CheckpointError: a file is not there: ranks on several machines with a local folder as storage.
    """
    folder = storage.child(folder_name(step))
    present = dict(folder.list())
    for name, entry in files.items():
        if present.get(name) != entry["size_bytes"]:
            raise CheckpointError(
                f"{folder.uri}/{name} was written by one worker and cannot be seen by another.",
                "Workers on several machines need storage that all of them share.",
            )
    record = {"format_version": FORMAT_VERSION, "step": step, "files": files}
    folder.write(COMMIT_KEY, json.dumps(record, indent=1).encode())


def fingerprint(path: Path) -> dict[str, Any]:
    """Size and SHA-256 of a local file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(HASH_BLOCK_BYTES):
            digest.update(block)
    return {"size_bytes": path.stat().st_size, "sha256": digest.hexdigest()}


def retain(storage: Storage, keep_last: int) -> None:
    """Delete all but the newest committed ones, and unfinished ones older than the newest."""
    found = list_checkpoints(storage)
    committed = [info for info in found if info.is_committed]
    kept = {info.name for info in (committed[-keep_last:] if keep_last else committed)}
    for info in found:
        if info.name not in kept and info.step < committed[-1].step:
            folder = storage.child(info.name)
            folder.delete(COMMIT_KEY)  # first: half deleted must not look whole
            for key, _ in folder.list():
                folder.delete(key)


class Fetched:
    """The newest whole checkpoint in a local folder, as a context; one rank of each host downloads."""

    def __init__(self, world: World, storage: Storage, scratch: Path, step: int | None = None) -> None:
        self.folder: Path | None = None
        self._world, self._storage, self._scratch, self._step = world, storage, scratch, step

    def __enter__(self) -> Fetched:
        found = on_all_ranks(self._world, lambda: list_checkpoints(self._storage))[0]
        newest_first = [i for i in reversed(found) if self._step in (None, i.step)]
        hosts = on_all_ranks(self._world, socket.gethostname)
        fetches = hosts.index(hosts[self._world.rank]) == self._world.rank
        damaged = []
        for info in newest_first:
            folder = self._scratch / f"fetched-{info.name}"
            problem = f"{info.name} was never committed (a run ended while writing it)"
            if info.is_committed:
                fetch = partial(self._fetch, folder, info) if fetches else str
                outcomes = on_all_ranks(self._world, fetch)
                problem = next((p for p in outcomes if p), "")
                self.folder = folder
                if not problem:
                    return self
                damaged.append(problem)
                self._clean()
            if self._world.rank == 0:
                log.warning("%s: %s; trying the one before.", self._storage.uri, problem)
        if damaged:
            raise CheckpointError(
                f"{self._storage.uri} has no whole checkpoint: {'; '.join(damaged)}.",
                "Restore its files, or remove the folder to start anew.",
            )
        return self

    def __exit__(self, *_: object) -> None:
        on_all_ranks(self._world, lambda: None)  # nobody reads any more
        self._clean()

    def required(self) -> Path:
        """The folder; there must be one."""
        if self.folder is None:
            raise no_such(self._storage, self._step)
        return self.folder

    def state(self) -> dict[str, Any]:
        """Its state.json."""
        state: dict[str, Any] = json.loads((self.required() / STATE_KEY).read_text())
        return state

    def _fetch(self, folder: Path, info: CheckpointInfo) -> str:
        """Download and verify; returns what is wrong."""
        source = self._storage.child(info.name)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            record = json.loads(source.read(COMMIT_KEY))
            version, files = record["format_version"], record["files"]
        except (ValueError, KeyError, TypeError):
            return f"{info.name}/{COMMIT_KEY} cannot be read"
        if version != FORMAT_VERSION:
            return f"{info.name} has format version {version}, this program reads {FORMAT_VERSION}"
        present = {key for key, _ in source.list()}
        for file, expected in files.items():
            if file not in present:
                return f"{info.name}/{file} is missing"
            source.download(file, folder / file)
            if fingerprint(folder / file) != expected:
                return f"{info.name}/{file} is not what was written"
        return ""

    def _clean(self) -> None:
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder = None


def no_such(storage: Storage, step: int | None) -> CheckpointError:
    """The error that says which steps there are."""
    what = "no committed checkpoint" if step is None else f"no committed checkpoint of step {step}"
    there = ", ".join(str(info.step) for info in list_checkpoints(storage) if info.is_committed)
    return CheckpointError(
        f"{storage.uri} has {what}.", f"There are: {there}." if there else "Has the run saved one yet?"
    )
