"""From the config of a captioner to the captioner, once per process."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from functools import lru_cache

from jobs.common import models
from jobs.common.devices import own_device
from plinth.errors import ConfigError
from plinth.storage import StorageOptions
from poma3d.network.weights import weights_revision
from poma3d.pretrained.captioner import Captioner, load_captioner
from poma3d.pretrained.config import CaptionerConfig

SOURCE = "captioner.source"


def open_captioner(cfg: CaptionerConfig, options: StorageOptions) -> Captioner:
    """The captioner of a job, loaded once per process.

    Raises:
        ConfigError: it cannot be loaded; says why.
        StorageError: its storage cannot be reached.
    """
    source = models.fetch(cfg.source, options, SOURCE)
    return _open(json.dumps(asdict(replace(cfg, source=source))))


@lru_cache(maxsize=1)
def _open(said: str) -> Captioner:
    from transformers.utils import logging

    logging.disable_progress_bar()  # it would write a line for each worker
    logging.set_verbosity_error()
    try:
        return load_captioner(CaptionerConfig(**json.loads(said)), own_device())
    except ValueError as error:
        raise ConfigError(f"{error}.") from None


def revision(cfg: CaptionerConfig, options: StorageOptions) -> str:
    """Which weights the captioner has, without loading them.

    Raises:
        ConfigError: there are none, others than the job expects, or a hub id that is not pinned.
    """
    try:
        return weights_revision(models.fetch(cfg.source, options, SOURCE), cfg.revision, "captioner")
    except ValueError as error:
        raise ConfigError(f"{error}.") from None
