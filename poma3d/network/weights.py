"""Which weights a model has: the hash of a folder's files, or the commit of a hub id."""

from __future__ import annotations

from pathlib import Path

from poma3d.pretrained.teacher import weight_hash


def weights_revision(source: str, revision: str | None, section: str = "lifter") -> str:
    """The hash of the weights in a local folder, or the pinned commit of a hub id. Loads nothing.

    Args:
        revision: commit of a hub id, or the expected hash of a folder (any when None).
        section: of the job that names the model, for errors.

    Raises:
        ValueError: nothing to load, other weights than expected, or a hub id that is not pinned.
    """
    if not source:
        raise ValueError(f"{section}.source is empty: give a folder with safetensors weights or a hub id")
    folder = Path(source)
    if not folder.is_dir():
        if not revision:
            raise ValueError(
                f"{section}.source {source} is no folder here; pin a hub id by its commit in "
                f"{section}.revision"
            )
        return revision
    if not (folder / "config.json").is_file():
        raise ValueError(f"{section}.source {source} has no config.json: give the folder of a saved model")
    found = weight_hash(folder)
    if revision and found != revision:
        raise ValueError(f"{section}.source {source} has weights {found}, the job expects {revision}")
    return found


def hub_commit(source: str, revision: str | None) -> str | None:
    """What `from_pretrained` is told as its revision: the commit of a hub id, None for a folder."""
    return None if Path(source).is_dir() else revision
