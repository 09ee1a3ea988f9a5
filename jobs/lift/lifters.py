"""From the config of a lifter to the lifter, once per process."""

from __future__ import annotations

from functools import lru_cache

from jobs.common import models
from jobs.common.devices import own_device
from jobs.lift.config import LifterConfig, LifterKind
from plinth.errors import ConfigError
from plinth.storage import StorageOptions
from poma3d.lift.given import GivenLifter
from poma3d.lift.lifter import HalvingLifter
from poma3d.network.weights import weights_revision


def open_lifter(cfg: LifterConfig, options: StorageOptions) -> HalvingLifter:
    """The lifter of a job, loaded once per process.

    Raises:
        ConfigError: it cannot be loaded; says why.
        StorageError: its storage cannot be reached.
    """
    source = models.fetch(cfg.source, options, "lifter.source")
    return _open(cfg.kind.name, source, cfg.revision, cfg.batch_size)


@lru_cache(maxsize=1)
def _open(kind: str, source: str, revision: str | None, batch_size: int) -> HalvingLifter:
    if kind == LifterKind.given.name:
        return HalvingLifter(GivenLifter(), batch_size)
    from poma3d.lift import depth_pro, vggt

    load = depth_pro.load if kind == LifterKind.depth_pro.name else vggt.load
    try:
        return HalvingLifter(load(source, revision, own_device()), batch_size)
    except ValueError as error:
        raise ConfigError(f"{error}.") from None


def revision(cfg: LifterConfig, options: StorageOptions) -> str:
    """Which weights the lifter has, without loading them.

    Raises:
        ConfigError: there are none, others than the job expects, or a hub id that is not pinned.
    """
    if not cfg.needs_model:
        return ""
    try:
        return weights_revision(models.fetch(cfg.source, options, "lifter.source"), cfg.revision)
    except ValueError as error:
        raise ConfigError(f"{error}.") from None
