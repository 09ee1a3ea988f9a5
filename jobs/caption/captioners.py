"""From the config of a captioner to the captioner, once per process."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from functools import lru_cache

from jobs.common import models
from jobs.common.devices import own_device
from plinth import plugins
from plinth.errors import ConfigError
from plinth.storage import StorageOptions
from poma3d.pretrained.captioner import NEEDED, Captioner, load_captioner
from poma3d.pretrained.config import CaptionerConfig
from poma3d.pretrained.folder import weights_revision

SOURCE = "captioner.source"


def open_captioner(config: CaptionerConfig, options: StorageOptions) -> Captioner:
    """The captioner of a job, loaded once per process.

    Raises:
        ConfigError: it cannot be loaded; says why.
        StorageError: its storage cannot be reached.
    """
    source = models.fetch(config.source, options, SOURCE)
    return _open(json.dumps(asdict(replace(config, source=source))))


@lru_cache(maxsize=1)
def _open(settings: str) -> Captioner:
    from transformers.utils import logging

    logging.disable_progress_bar()  # it would write a line for each worker
    logging.set_verbosity_error()
    config = CaptionerConfig(**json.loads(settings))
    try:
        if plugins.is_own(config.kind):
            captioner: Captioner = plugins.make(config, "captioner", own_device())
            return captioner
        return load_captioner(config, own_device())
    except ValueError as error:
        raise ConfigError(f"{error}.") from None


def revision(config: CaptionerConfig, options: StorageOptions) -> str:
    """Which weights the captioner has, without loading them.

    Raises:
        ConfigError: there are none, others than the job expects, or a hub id that is not pinned.
    """
    if plugins.is_own(config.kind):
        return str(open_captioner(config, options).revision)
    try:
        source = models.fetch(config.source, options, SOURCE)
        return weights_revision(source, config.revision, "captioner", NEEDED)
    except ValueError as error:
        raise ConfigError(f"{error}.") from None
