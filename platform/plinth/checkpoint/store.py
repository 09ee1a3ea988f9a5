"""Checkpoints as files in storage: list, commit, verify and fetch.

    step-00000100/
      <token>-rank-0001-of-0002.safetensors   what a rank wrote; the token names the attempt
      receipt-<token>-0001-of-0002.json       part record: what a rank has uploaded; gone after the commit
      COMMIT.json                             written last

The commit record has the size and SHA-256 of every file of the checkpoint, the state (step, cursor, resolved
job, versions) and a hash of itself. A folder without it is ignored, and so are files that it does not name:
files of two attempts at the same step never mix.
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

from plinth.digests import json_digest
from plinth.engine.process import on_all_ranks
from plinth.errors import CheckpointError
from plinth.storage import Storage
from plinth.world import World

FORMAT_VERSION = 2
COMMIT_KEY, PIN_KEY = "COMMIT.json", "PINNED.json"
DAMAGED_KEY = "DAMAGED.json"
"""The record of a checkpoint that was found damaged and taken out of use."""
PART_RECORD_PREFIX = "receipt-"
FOLDER_PATTERN = re.compile(r"step-(\d{8})")
HASH_BLOCK_BYTES = 1 << 20

log = logging.getLogger(__name__)


class OtherFormatError(CheckpointError):
    """A checkpoint of another format version: whole, as far as this program can say, but not for it."""


@dataclass(frozen=True)
class CheckpointInfo:
    """One checkpoint in storage."""

    step: int
    name: str
    size_bytes: int
    is_committed: bool
    is_pinned: bool = False


def list_checkpoints(storage: Storage) -> list[CheckpointInfo]:
    """All checkpoints in `storage`, committed or not, by step."""
    files: dict[str, dict[str, int]] = {}
    for key, size in storage.list():
        name, _, file = key.partition("/")
        if FOLDER_PATTERN.fullmatch(name) and file:
            files.setdefault(name, {})[file] = size
    return [
        CheckpointInfo(
            int(name.removeprefix("step-")), name, sum(found.values()), COMMIT_KEY in found, PIN_KEY in found
        )
        for name, found in sorted(files.items())
    ]


def latest(storage: Storage) -> int | None:
    """Step of the newest committed checkpoint."""
    steps = [info.step for info in list_checkpoints(storage) if info.is_committed]
    return max(steps, default=None)


def folder_name(step: int) -> str:
    """Folder of the checkpoint of `step`."""
    return f"step-{step:08d}"


def fingerprint(path: Path) -> dict[str, Any]:
    """Size and SHA-256 of a local file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(HASH_BLOCK_BYTES):
            digest.update(block)
    return {"size_bytes": path.stat().st_size, "sha256": digest.hexdigest()}


# -- the record -----------------------------------------------------------------------------------------


def commit(
    storage: Storage, step: int, files: dict[str, dict[str, Any]], state: dict[str, Any], token: str
) -> None:
    """Write the commit record of `step`, in place of an earlier one of that step.

    Args:
        files: name -> `fingerprint` of everything that the ranks have uploaded.
        state: JSON values that `read_state` returns.
        token: names the attempt that wrote the files.

    Raises:
        CheckpointError: a file is missing: ranks on several machines with a local folder as storage.
    """
    folder = storage.child(folder_name(step))
    present = dict(folder.list())
    for name, entry in files.items():
        if present.get(name) != entry["size_bytes"]:
            raise CheckpointError(
                f"{folder.uri}/{name} was written by one worker and another cannot see it.",
                "Workers on several machines need storage that all of them share.",
            )
    record = {
        "format_version": FORMAT_VERSION, "step": step, "token": token, "files": files, "state": state,
    }  # fmt: skip
    record["sha256"] = _record_hash(record)
    folder.write(COMMIT_KEY, json.dumps(record, indent=1).encode())


def read_record(storage: Storage, step: int) -> dict[str, Any]:
    """The commit record of a checkpoint.

    Raises:
        OtherFormatError: it is of another format version.
        CheckpointError: it cannot be read, or was altered.
        MissingKeyError: the checkpoint was never committed.
    """
    key = f"{folder_name(step)}/{COMMIT_KEY}"
    try:
        record: dict[str, Any] = json.loads(storage.read(key))
        version, expected = record["format_version"], record["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(storage, f"{key} cannot be read") from error
    if version != FORMAT_VERSION:
        raise OtherFormatError(
            f"{storage.uri}: {key} has format version {version}, this program reads {FORMAT_VERSION}.",
            "Use the version of this program that wrote it.",
        )
    if _record_hash(record) != expected:
        raise _damaged(storage, f"{key} is not what was written")
    return record


def read_state(storage: Storage, step: int | None = None) -> dict[str, Any]:
    """The state in a commit record; when `step` is None, in the newest record that can be read.

    Raises:
        CheckpointError: there is none.
    """
    committed = [info.step for info in list_checkpoints(storage) if info.is_committed]
    if step is not None:
        if step not in committed:
            raise no_such(storage, step)
        return dict(read_record(storage, step)["state"])
    problem: CheckpointError | None = None
    for candidate in reversed(committed):
        try:
            return dict(read_record(storage, candidate)["state"])
        except CheckpointError as error:
            problem = problem or error
    raise problem or no_such(storage, step)


def whats_wrong(storage: Storage, step: int, local: Path) -> str:
    """Download a committed checkpoint into the folder `local` and compare it with its record.

    Returns:
        The first fault found; empty if there is none.

    Raises:
        OtherFormatError: it is of another format version.
    """
    try:
        record = read_record(storage, step)
    except OtherFormatError:
        raise
    except CheckpointError as error:
        return error.problem.rstrip(".")
    source = storage.child(folder_name(step))
    present = {key for key, _ in source.list()}
    for file, expected in record["files"].items():
        if file not in present:
            return f"{folder_name(step)}/{file} is missing"
        source.download(file, local / file)
        if fingerprint(local / file) != expected:
            return f"{folder_name(step)}/{file} is not what was written"
    return ""


def take_out_of_use(storage: Storage, step: int) -> None:
    """Make a damaged checkpoint one that no run looks at: its record is renamed, nothing is deleted."""
    folder = storage.child(folder_name(step))
    folder.write(DAMAGED_KEY, folder.read(COMMIT_KEY))
    folder.delete(COMMIT_KEY)


def no_such(storage: Storage, step: int | None) -> CheckpointError:
    """The error for a missing checkpoint; it lists the steps that exist."""
    what = "no committed checkpoint" if step is None else f"no committed checkpoint of step {step}"
    there = ", ".join(str(info.step) for info in list_checkpoints(storage) if info.is_committed)
    return CheckpointError(
        f"{storage.uri} has {what}.", f"There are: {there}." if there else "Has the run saved one yet?"
    )


def _record_hash(record: dict[str, Any]) -> str:
    return json_digest({key: value for key, value in record.items() if key != "sha256"})


def _damaged(storage: Storage, problem: str) -> CheckpointError:
    return CheckpointError(f"{storage.uri}: {problem}.", "Run `poma checkpoints repair` on the run.")


# -- fetching -------------------------------------------------------------------------------------------


class Fetched:
    """The newest whole checkpoint, downloaded to a local folder by one rank per host; a context manager.

    `folder` is None if no checkpoint is committed.

    Args:
        step: take this one and no other.
        only_newest: take the newest that is committed and no other: an older one would be another result.
    """

    def __init__(
        self,
        world: World,
        storage: Storage,
        scratch: Path,
        step: int | None = None,
        only_newest: bool = False,
    ) -> None:
        self.folder: Path | None = None
        self.damaged: dict[int, str] = {}
        """What is wrong with those that were passed over, by their steps."""
        self._world, self._storage, self._scratch, self._step = world, storage, scratch, step
        self._only_newest = only_newest
        self._state: dict[str, Any] = {}

    def __enter__(self) -> Fetched:
        found = on_all_ranks(self._world, lambda: list_checkpoints(self._storage))[0]
        newest_first = [i for i in reversed(found) if self._step in (None, i.step)]
        hosts = on_all_ranks(self._world, socket.gethostname)
        fetches = hosts.index(hosts[self._world.rank]) == self._world.rank
        for info in newest_first:
            problem = f"{info.name} was never committed (a run ended while writing it)"
            if info.is_committed:
                self.folder = self._scratch / f"fetched-{info.name}"
                fetch = partial(self._fetch, self.folder, info.step) if fetches else str
                problem = next((p for p in on_all_ranks(self._world, fetch) if p), "")
                if not problem:
                    self._state = read_record(self._storage, info.step)["state"]
                    return self
                self.damaged[info.step] = problem
                self._clean()
                if self._only_newest:
                    raise CheckpointError(
                        f"{self._storage.uri}: the last checkpoint is damaged: {problem}.",
                        "Give the command of that run again, which trains the missing steps again, or take "
                        "it out of use with `poma checkpoints repair`.",
                    )
            if self._world.rank == 0:
                log.warning("%s: %s; trying the previous one.", self._storage.uri, problem)
        if self.damaged:
            raise CheckpointError(
                f"{self._storage.uri} has no whole checkpoint: {'; '.join(self.damaged.values())}.",
                "Restore its files, or remove the folder to start from the beginning.",
            )
        return self

    def __exit__(self, *_: object) -> None:
        on_all_ranks(self._world, lambda: None)  # no rank reads it any more
        self._clean()

    def required(self) -> Path:
        """The folder; raises a CheckpointError if there is none."""
        if self.folder is None:
            raise no_such(self._storage, self._step)
        return self.folder

    def state(self) -> dict[str, Any]:
        """The state in its commit record."""
        self.required()
        return self._state

    def _fetch(self, folder: Path, step: int) -> str:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return whats_wrong(self._storage, step, folder)

    def _clean(self) -> None:
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder = None
