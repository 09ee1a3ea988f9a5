"""From the config of a lifter to the lifter, once per process."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from functools import lru_cache

from jobs.common import models
from jobs.common.devices import own_device
from jobs.lift.config import LifterConfig
from plinth import plugins
from plinth.errors import ConfigError
from plinth.storage import StorageOptions
from poma3d.lift.given import GivenLifter
from poma3d.lift.lifter import DECODE_SIDE_PX, HalvingLifter, Lifter
from poma3d.pretrained.folder import weights_revision


def open_lifter(config: LifterConfig, options: StorageOptions) -> HalvingLifter:
    """The lifter of a job, loaded once per process.

    Raises:
        ConfigError: it cannot be loaded; says why.
        StorageError: its storage cannot be reached.
    """
    source = models.fetch(config.source, options, "lifter.source")
    return _open(json.dumps(asdict(replace(config, source=source))))


@lru_cache(maxsize=1)
def _open(settings: str) -> HalvingLifter:
    config = LifterConfig(**json.loads(settings))
    try:
        return HalvingLifter(_load(config), config.batch_size)
    except ValueError as error:
        raise ConfigError(f"{error}.") from None


def _load(config: LifterConfig) -> Lifter:
    if plugins.is_own(config.kind):
        lifter: Lifter = plugins.make(config, "lifter", own_device())
        return lifter
    if config.kind == "given":
        return GivenLifter()
    from poma3d.lift import depth_pro, vggt

    load = depth_pro.load if config.kind == depth_pro.NAME else vggt.load
    return load(config.source, config.revision, own_device(), config.allow_tensors)


def decode_side_px(config: LifterConfig) -> int:
    """Longer side of the pictures that the lifter wants, without loading it: its class says so.

    Raises:
        ConfigError: an own class that cannot be used.
    """
    if plugins.is_own(config.kind):
        own = plugins.open_class(config.kind, "lifter", config.OWN_METHODS)
        return int(getattr(own, "decode_side_px", DECODE_SIDE_PX))
    if config.kind == GivenLifter.name:
        return GivenLifter.decode_side_px
    from poma3d.lift import depth_pro, vggt

    is_depth_pro = config.kind == depth_pro.NAME
    return (depth_pro.DepthProLifter if is_depth_pro else vggt.VggtLifter).decode_side_px


def revision(config: LifterConfig, options: StorageOptions) -> str:
    """Which weights the lifter has, without loading them.

    Raises:
        ConfigError: there are none, others than the job expects, or a hub id that is not pinned.
    """
    if plugins.is_own(config.kind):
        return str(open_lifter(config, options).revision)
    if not config.needs_model:
        return ""
    from poma3d.lift import depth_pro

    parts = depth_pro.NEEDED if config.kind == depth_pro.NAME else ()
    source = models.fetch(config.source, options, "lifter.source")
    try:
        return weights_revision(source, config.revision, parts=parts)
    except ValueError as error:
        raise ConfigError(f"{error}.") from None
