"""A rank's part of a checkpoint on its way: files on this machine, files in storage, the commit.

    <scratch>/waiting/step-00000100-<token>-<rank>/
      <token>-rank-0001-of-0002.safetensors
      RECEIPT.json      written last: the part record (the files, which slices they hold, rank 0's state)

The upload of such a folder can be finished by the rank that wrote it, or by the next process on that
machine after a crash (`recover`).
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import shutil
import socket
from pathlib import Path
from typing import Any

from plinth.checkpoint import store, tensor_files
from plinth.checkpoint.config import UploadHook
from plinth.checkpoint.tensor_files import Slice
from plinth.engine.process import on_all_ranks
from plinth.engine.zero_shards import TensorShard
from plinth.errors import CheckpointError
from plinth.storage import MissingKeyError, Storage, local_files
from plinth.world import World

QUEUE_FOLDER = "waiting"
PART_RECORD_KEY = "RECEIPT.json"
PART_RECORD_KEYS = {"run", "key", "step", "token", "files", "slices", "state"}
FAILED_PREFIX = "given-up-"
PART_RECORD_PATTERN = re.compile(store.PART_RECORD_PREFIX + r"(\w+)-(\d+)-of-(\d+)\.json")
UNFINISHED = "its process ended while writing it"

log = logging.getLogger(__name__)


def identity(storage: Storage, scratch: Path) -> str:
    """What a part says whose it is: the folder of the checkpoints, and of the run's files on this machine,
    whose name tells this run from an earlier one in that folder."""
    return f"{storage.uri} {scratch.name}"


def write_local(
    folder: Path,
    step: int,
    token: str,
    shards: list[TensorShard],
    state: dict[str, Any],
    world: World,
    run: str,
) -> None:
    """Put this rank's part on the disk of this machine.

    Args:
        run: its `identity`.

    Raises:
        OSError: the disk is full or gone; nothing is left of the folder.
    """
    place = f"{world.rank + 1:04d}-of-{world.world_size:04d}"
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        name = f"{token}-rank-{place}{tensor_files.SUFFIX}"
        slices = tensor_files.write(shards, folder / name)
        record = {
            "run": run,
            "key": f"{store.PART_RECORD_PREFIX}{token}-{place}.json",
            "step": step,
            "token": token,
            "files": {path.name: store.fingerprint(path) for path in folder.iterdir()},
            "slices": slices,
            "state": state if world.rank == 0 else None,
        }
        local_files.write(str(folder / PART_RECORD_KEY), json.dumps(record).encode())
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def upload_part(storage: Storage, folder: Path, on_upload: UploadHook | None = None) -> tuple[int, str]:
    """Upload the files of a folder, then its record. Doing so twice does no harm.

    Returns:
        The step and the token.

    Raises:
        StorageError: the storage is away.
    """
    record = json.loads((folder / PART_RECORD_KEY).read_text())
    step: int = record["step"]
    target = storage.child(store.folder_name(step))
    for name, key in [*((name, name) for name in record["files"]), (PART_RECORD_KEY, record["key"])]:
        if on_upload is not None:
            on_upload(step, name)
        target.upload(folder / name, key)
    return step, record["token"]


def commit_if_whole(storage: Storage, step: int, token: str) -> bool:
    """Commit a checkpoint if the records of all ranks' parts are there; whether it is committed.

    Raises:
        CheckpointError: a rank could not write its part, or a file that a record names is not there.
        ValueError: the ranks' slices do not cover every tensor once.
    """
    folder = storage.child(store.folder_name(step))
    keys = [key for key, _ in folder.list()]
    if f"{FAILED_PREFIX}{token}" in keys:
        raise CheckpointError(f"{folder.uri}: a rank could not write its part.")
    found = [match for key in keys if (match := PART_RECORD_PATTERN.fullmatch(key)) and match[1] == token]
    if not found or len(found) < int(found[0][3]):
        return store.COMMIT_KEY in keys and store.read_record(storage, step)["token"] == token
    records = [json.loads(folder.read(match[0])) for match in found]
    tensor_files.check_whole(Slice(*part) for record in records for part in record["slices"])
    files = {name: entry for record in records for name, entry in record["files"].items()}
    state = next(record["state"] for record in records if record["state"] is not None)
    store.commit(storage, step, files, state, token)
    for match in found:
        folder.delete(match[0])
    return True


def mark_failed(storage: Storage, step: int, token: str) -> None:
    """Tell the ranks that wait for this one's part that it will not come."""
    storage.child(store.folder_name(step)).write(f"{FAILED_PREFIX}{token}", b"")


def recover(world: World, storage: Storage, scratch: Path) -> None:
    """Upload what dead processes of this run left on the disks of these machines, and commit what is
    whole with it. Call it on all ranks, before the newest checkpoint is looked for.

    Args:
        scratch: of this stage of this run, as the processes before had it.

    Raises:
        StorageError: the storage is away.
    """
    run = identity(storage, scratch)
    hosts = on_all_ranks(world, socket.gethostname)
    is_first_on_host = hosts.index(hosts[world.rank]) == world.rank
    queue = scratch / QUEUE_FOLDER
    left = on_all_ranks(world, lambda: _upload_all(storage, queue, run) if is_first_on_host else [])
    uploaded = sorted({item for of_host in left for item in of_host})

    def commit() -> None:
        for step, token in uploaded if world.rank == 0 else []:
            try:
                if commit_if_whole(storage, step, token):
                    log.info("%s: the checkpoint of step %d, left on a disk, is committed", storage.uri, step)
            # This one is lost, the others are still committed.
            except (CheckpointError, ValueError, KeyError, TypeError) as error:
                log.warning("%s: the checkpoint of step %d, left on a disk: %s", storage.uri, step, error)

    on_all_ranks(world, commit)
    if is_first_on_host and uploaded:
        newest = store.latest(storage)
        for folder in queue.iterdir():
            if newest is not None and _step_of(folder) <= newest:
                _remove(folder)


def _upload_all(storage: Storage, queue: Path, run: str) -> list[tuple[int, str]]:
    folders = sorted(queue.iterdir()) if queue.is_dir() else []
    newest = store.latest(storage) if folders else None
    uploaded = []
    for folder in folders:
        if newest is not None and _step_of(folder) <= newest:
            _remove(folder)
        elif wrong := _whats_wrong(folder, run):
            if wrong != UNFINISHED:
                log.warning("%s is not uploaded: %s", folder, wrong)
            _remove(folder)
        else:
            uploaded.append(upload_part(storage, folder))
    return uploaded


def _whats_wrong(folder: Path, run: str) -> str:
    """Why a part that lies on the disk cannot be uploaded; empty if it can."""
    if folder.is_symlink():
        return "it is a link"
    if not (folder / PART_RECORD_KEY).is_file():
        return UNFINISHED
    try:
        record = json.loads((folder / PART_RECORD_KEY).read_text())
        if record["run"] != run:
            return f"it is of another run ({record['run']!r})"
        for name, expected in record["files"].items():
            if store.fingerprint(folder / name) != expected:
                return f"{name} is not what was written"
        return ", ".join(f"no {key}" for key in sorted(PART_RECORD_KEYS - record.keys()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError) as error:
        return f"{PART_RECORD_KEY} or what it names cannot be read ({type(error).__name__})"


def _remove(folder: Path) -> None:
    """A part from the disk; of a link the link alone, never what it points to."""
    if folder.is_symlink():
        with contextlib.suppress(OSError):
            folder.unlink()
    else:
        shutil.rmtree(folder, ignore_errors=True)


def _step_of(folder: Path) -> int:
    match = store.FOLDER_PATTERN.match(folder.name)
    return int(match[1]) if match else -1


def leftovers(storage: Storage, step: int) -> list[str]:
    """Files in a checkpoint's folder that its record does not name: left by attempts that died.

    Raises:
        CheckpointError: the record is damaged.
    """
    folder = storage.child(store.folder_name(step))
    named = {store.COMMIT_KEY, store.PIN_KEY}
    with contextlib.suppress(MissingKeyError):
        named |= set(store.read_record(storage, step)["files"])
    return [key for key, _ in folder.list() if key not in named]


def tokens(storage: Storage, step: int) -> list[str]:
    """Attempts at the checkpoint of `step` that left part records."""
    folder = storage.child(store.folder_name(step))
    matches = [PART_RECORD_PATTERN.fullmatch(key) for key, _ in folder.list()]
    return sorted({match[1] for match in matches if match})
