"""Finding a teacher wherever it lies: a folder, a storage URI or a hub id."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import socket
import tempfile
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from plinth import plugins
from plinth.config import fingerprint
from plinth.errors import ConfigError
from plinth.locations import names_folder
from plinth.observe import terminal
from plinth.storage import Storage, StorageOptions
from poma3d.pretrained.config import TeacherConfig, TeacherRecord
from poma3d.pretrained.folder import same_revision
from poma3d.pretrained.outline import TeacherOutline, read_outline
from poma3d.pretrained.teacher import Teacher, load_teacher, validate

PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy")
"""With one of them set the hub's name need not be known on this machine."""
HTTPS_PORT = 443
CACHE_ENV = "POMA3D_CACHE"
REVISION = "revision"
WANTED = (".json", ".txt", ".jinja", ".model", ".tiktoken", ".safetensors")


def cache_folder() -> Path:
    """Where downloads are kept on a node: $POMA3D_CACHE, else ~/.cache/poma3d.

    Raises:
        ConfigError: neither is there.
    """
    try:
        return Path(os.environ.get(CACHE_ENV) or Path.home() / ".cache" / "poma3d")
    except RuntimeError:
        raise ConfigError(
            "This user has no home folder for downloads.", f"Set {CACHE_ENV} to a folder that it can write."
        ) from None


def open_teacher(config: TeacherConfig, options: StorageOptions, device: str = "cpu") -> Teacher:
    """The teacher of a job, loaded once per process.

    Args:
        device: where its towers run; see `jobs.common.devices`.

    Raises:
        ConfigError: it cannot be loaded; says why.
        StorageError: its storage cannot be reached.
    """
    source = fetch(config.source, options)
    return _open(json.dumps([asdict(config), source]), device, str(Path.cwd()))


@lru_cache(maxsize=2)  # its shapes and first weights are read on the CPU, its features computed on a GPU
def _open(settings: str, device: str, below: str) -> Teacher:
    """`below`: the folder that a relative source is in."""
    given, source = json.loads(settings)
    config = TeacherConfig(**given)
    if plugins.is_own(config.kind):
        own: Teacher = plugins.make(config, "teacher", device)
        return own
    quiet_transformers()
    try:
        return load_teacher(replace(config, source=source), device)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def outline(config: TeacherConfig, options: StorageOptions) -> TeacherOutline:
    """What pretraining needs of a teacher, without the rest of it where that is possible.

    Raises:
        ConfigError, StorageError: as `open_teacher`.
    """
    found = outline_in_folder(config, options)
    if found is not None:
        return found
    teacher = open_teacher(config, options)
    return TeacherOutline(teacher.name, teacher.revision, teacher.image_tower())


def outline_in_folder(config: TeacherConfig, options: StorageOptions) -> TeacherOutline | None:
    """The same where it can be read without loading the teacher; None elsewhere.

    Raises:
        ConfigError, StorageError: as `open_teacher`.
    """
    terminal.drop_noise()  # peft imports DeepSpeed where it is installed
    if plugins.is_own(config.kind):
        return None
    return _outline(json.dumps([asdict(config), fetch(config.source, options)]), str(Path.cwd()))


@lru_cache(maxsize=2)
def _outline(settings: str, below: str) -> TeacherOutline | None:
    """`below`: the folder that a relative source is in."""
    given, source = json.loads(settings)
    config = replace(TeacherConfig(**given), source=source)
    try:
        validate(config)
        return read_outline(config)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def fetch(source: str, options: StorageOptions, key: str = "teacher.source") -> str:
    """A local folder for a storage URI, downloaded once; anything else as it is.

    Args:
        key: of the job, to name in an error.

    Raises:
        ConfigError: no such folder, or no model in it.
    """
    if "://" not in source:
        check_source(source, key)
        return source
    storage = Storage.from_uri(source, options)
    files = [(key, size) for key, size in storage.list() if key.endswith(WANTED) and "/" not in key]
    if not any(key == "config.json" for key, _ in files):
        raise ConfigError(f"{key} {source} has no config.json.", "Give the folder of a saved model.")
    name = hashlib.sha256(repr((storage.uri, sorted(files))).encode()).hexdigest()[:16]
    folder = cache_folder() / "teachers" / name
    if folder.is_dir():
        return str(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{folder.parent} cannot be made for downloads ({error.strerror}).",
            f"Set {CACHE_ENV} to a folder that can be written.",
        ) from None
    partial = Path(tempfile.mkdtemp(dir=folder.parent))
    # mkdtemp's mode is for its owner alone, a cache is for all of a node.
    partial.chmod(folder.parent.stat().st_mode)
    for key, _ in files:
        storage.download(key, partial / key)
    try:
        partial.rename(folder)
    except OSError:  # another process was first
        shutil.rmtree(partial)
    return str(folder)


def check_source(source: str, key: str) -> None:
    """Refuse a folder that is not there, and stop the hub's client from retrying where there is no network:
    half a minute and eleven lines, for what is in the cache already or cannot be had.

    Args:
        source: a folder or a hub id.
        key: of the job, to name in an error.

    Raises:
        ConfigError: it is neither.
    """
    if Path(source).is_dir():
        return
    if source and names_folder(source):
        raise ConfigError(
            f"{key} {source}: no such folder, and no hub id (OWNER/NAME) looks like that.", "Check the path."
        )
    from huggingface_hub import constants

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    if not constants.HF_HUB_OFFLINE and not is_known(urlsplit(constants.ENDPOINT).hostname or ""):
        constants.HF_HUB_OFFLINE = True


@lru_cache
def is_known(host: str) -> bool:
    """Whether the name of a host is known here, or a proxy's business."""
    if any(os.environ.get(name) for name in PROXIES):
        return True
    try:
        socket.getaddrinfo(host, HTTPS_PORT)
    except OSError:
        return False
    return True


def record(config: TeacherConfig, options: StorageOptions) -> TeacherRecord:
    """What the manifest says of this teacher."""
    if plugins.is_own(config.kind):
        teacher = open_teacher(config, options)
        revision = f"{teacher.revision}-{fingerprint(plugins.identity(config, 'teacher'))}"
        return TeacherRecord(config.kind, revision, teacher.embedding)
    found = outline(config, options)
    name = config.source.rstrip("/").split("/")[-1] if "://" in config.source else found.name
    return TeacherRecord(name, found.revision, found.tower.shape.joint)


def settle_revisions(stored: Any, now: Any) -> Any:
    """A recipe as it was stored, with the revisions of `now` where both may be the same weights.

    Folders' revisions did not always cover tokenizer and preprocessor: what an older build stored is taken
    for the folder with the same weights (`poma3d.pretrained.folder.same_revision`).
    """
    if not (isinstance(stored, dict) and isinstance(now, dict)):
        return stored
    settled = {key: settle_revisions(value, now.get(key)) for key, value in stored.items()}
    before, found = stored.get(REVISION), now.get(REVISION)
    if isinstance(before, str) and isinstance(found, str) and same_revision(before, found):
        settled[REVISION] = found
    return settled


def quiet_transformers() -> None:
    """Keep transformers from saying what nobody can act on while it loads a model."""
    terminal.drop_noise()  # transformers and peft import DeepSpeed where it is installed
    from transformers.utils import logging

    logging.disable_progress_bar()  # it would write a line for each worker and task
    logging.set_verbosity_error()
