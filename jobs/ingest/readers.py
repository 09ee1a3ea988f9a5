"""From the config of a source to its reader."""

from __future__ import annotations

from importlib import import_module

from jobs.ingest.config import READERS, ReaderConfig
from plinth import plugins
from plinth.errors import ConfigError
from poma3d.scenes.frame import Reader


def make_reader(config: ReaderConfig) -> Reader:
    """The reader of a source; built-in ones are imported only when they are asked for.

    Raises:
        ConfigError: an own class that cannot be used, or a value that cannot be.
    """
    reader: Reader
    if plugins.is_own(config.kind):
        reader = plugins.make(config, "reader")
        return reader
    module, _, name = READERS[config.kind].partition(":")
    try:
        reader = getattr(import_module(module), name)(getattr(config, config.kind))
    except ValueError as error:
        raise ConfigError(f"reader.{config.kind}: {error}.") from None
    return reader
