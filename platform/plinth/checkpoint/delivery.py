"""A rank's part of a checkpoint on its way: files on this machine, files in storage, the commit.

    <scratch>/waiting/step-00000100-<token>-<rank>/
      <token>-rank-0001-of-0002.safetensors
      RECEIPT.json      written last: what the files are, which slices they hold, rank 0's state

Whoever finds such a folder can finish its delivery: the rank that wrote it, or the next process on that
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
from plinth.checkpoint.tensor_files import Slice
from plinth.engine.process import on_all_ranks
from plinth.engine.zero_shards import Piece
from plinth.errors import CheckpointError
from plinth.storage import MissingKeyError, Storage
from plinth.storage.local_files import replace, write_synced
from plinth.world import World

WAITING_FOLDER = "waiting"
RECEIPT_KEY = "RECEIPT.json"
GIVEN_UP_PREFIX = "given-up-"
RECEIPT_PATTERN = re.compile(store.RECEIPT_PREFIX + r"(\w+)-(\d+)-of-(\d+)\.json")

log = logging.getLogger(__name__)


def write_local(
    folder: Path, step: int, token: str, pieces: list[Piece], state: dict[str, Any], world: World
) -> None:
    """Put this rank's part on the disk of this machine.

    Raises:
        OSError: the disk is full or gone; nothing is left of the folder.
    """
    place = f"{world.rank + 1:04d}-of-{world.world_size:04d}"
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        name = f"{token}-rank-{place}{tensor_files.SUFFIX}"
        slices = tensor_files.write(pieces, folder / name)
        receipt = {
            "key": f"{store.RECEIPT_PREFIX}{token}-{place}.json",
            "step": step,
            "token": token,
            "files": {path.name: store.fingerprint(path) for path in folder.iterdir()},
            "slices": slices,
            "state": state if world.rank == 0 else None,
        }
        text = json.dumps(receipt).encode()
        replace(str(folder / RECEIPT_KEY), lambda temporary: write_synced(temporary, text))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def deliver(storage: Storage, folder: Path) -> tuple[int, str]:
    """Upload the files of a folder, then its receipt. Doing so twice does no harm.

    Returns:
        The step and the token.

    Raises:
        StorageError: the storage is away.
    """
    receipt = json.loads((folder / RECEIPT_KEY).read_text())
    target = storage.child(store.folder_name(receipt["step"]))
    for name in receipt["files"]:
        target.upload(folder / name, name)
    target.upload(folder / RECEIPT_KEY, receipt["key"])
    return receipt["step"], receipt["token"]


def commit_if_whole(storage: Storage, step: int, token: str) -> bool:
    """Commit a checkpoint if the receipts of all ranks that wrote it are there; whether it is committed.

    Raises:
        CheckpointError: a rank has given up, or a file that a receipt names is not there.
        ValueError: the ranks' slices do not cover every tensor once.
    """
    folder = storage.child(store.folder_name(step))
    keys = [key for key, _ in folder.list()]
    if f"{GIVEN_UP_PREFIX}{token}" in keys:
        raise CheckpointError(f"{folder.uri}: a rank could not write its part.")
    found = [match for key in keys if (match := RECEIPT_PATTERN.fullmatch(key)) and match[1] == token]
    if not found or len(found) < int(found[0][3]):
        return store.COMMIT_KEY in keys and store.read_record(storage, step)["token"] == token
    receipts = [json.loads(folder.read(match[0])) for match in found]
    tensor_files.check_whole(Slice(*part) for receipt in receipts for part in receipt["slices"])
    files = {name: entry for receipt in receipts for name, entry in receipt["files"].items()}
    state = next(receipt["state"] for receipt in receipts if receipt["state"] is not None)
    store.commit(storage, step, files, state, token)
    for match in found:
        folder.delete(match[0])
    return True


def give_up(storage: Storage, step: int, token: str) -> None:
    """Tell the ranks that wait for this one's receipt that it will not come."""
    storage.child(store.folder_name(step)).write(f"{GIVEN_UP_PREFIX}{token}", b"")


def recover(world: World, storage: Storage, scratch: Path) -> None:
    """Upload what dead processes of this run left on the disks of these machines, and commit what is
    whole with it. Call it on all ranks, before the newest checkpoint is looked for.

    Args:
        scratch: of this stage of this run, as the processes before had it.

    Raises:
        StorageError: the storage is away.
    """
    hosts = on_all_ranks(world, socket.gethostname)
    leads = hosts.index(hosts[world.rank]) == world.rank
    room = scratch / WAITING_FOLDER
    left = on_all_ranks(world, lambda: _deliver_all(storage, room) if leads else [])
    begun = sorted({item for of_host in left for item in of_host})

    def commit() -> None:
        for step, token in begun if world.rank == 0 else []:
            if commit_if_whole(storage, step, token):
                log.info("%s: the checkpoint of step %d, left on a disk, is committed", storage.uri, step)

    on_all_ranks(world, commit)
    if leads and begun:
        newest = store.latest(storage)
        for folder in room.iterdir():
            if newest is not None and _step_of(folder) <= newest:
                shutil.rmtree(folder, ignore_errors=True)


def _deliver_all(storage: Storage, room: Path) -> list[tuple[int, str]]:
    folders = sorted(room.iterdir()) if room.is_dir() else []
    newest = store.latest(storage) if folders else None
    delivered = []
    for folder in folders:
        is_whole = (folder / RECEIPT_KEY).is_file()
        if not is_whole or (newest is not None and _step_of(folder) <= newest):
            shutil.rmtree(folder, ignore_errors=True)
        else:
            delivered.append(deliver(storage, folder))
    return delivered


def _step_of(folder: Path) -> int:
    match = store.FOLDER_PATTERN.match(folder.name)
    return int(match[1]) if match else -1


def leftovers(storage: Storage, step: int) -> list[str]:
    """Files in a checkpoint's folder that its record does not name: of attempts that died.

    Raises:
        CheckpointError: the record is damaged.
    """
    folder = storage.child(store.folder_name(step))
    named = {store.COMMIT_KEY, store.PIN_KEY}
    with contextlib.suppress(MissingKeyError):
        named |= set(store.read_record(storage, step)["files"])
    return [key for key, _ in folder.list() if key not in named]


def tokens(storage: Storage, step: int) -> list[str]:
    """Attempts at the checkpoint of `step` that left receipts."""
    folder = storage.child(store.folder_name(step))
    matches = [RECEIPT_PATTERN.fullmatch(key) for key, _ in folder.list()]
    return sorted({match[1] for match in matches if match})
