"""`poma config JOB`: the resolved job, or all its keys with their meaning."""

from __future__ import annotations

import argparse
from typing import Any

from omegaconf import OmegaConf

from jobs.jobfile import open_schema, read
from plinth import config, plugins
from plinth.schema import describe


def run(arguments: argparse.Namespace) -> int:
    """Print the resolved job, or every key; returns the exit code."""
    file = read(arguments.job)
    schema = open_schema(file.kind)
    if not arguments.help_keys:
        print(config.to_yaml(file.resolve(schema, arguments.overrides)), end="")
        return 0
    own = plugins.own_keys(OmegaConf.to_container(file.raw))
    for key in (*describe(schema), *own):
        print(f"{key.name}: {key.type} = {_shown(key.default)}\n    {key.help}")
    return 0


def _shown(value: Any) -> str:
    return str(getattr(value, "name", value))
