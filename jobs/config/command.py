"""`poma config JOB`: the resolved job, or all its keys with their meaning.

A job that is not complete, such as a shipped one, is printed too: `???` where a value is still to be said.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from enum import Enum
from typing import Any

from omegaconf import OmegaConf

from jobs.jobfile import JobFile, open_schema, read
from plinth import config, plugins
from plinth.schema import describe


def run(arguments: argparse.Namespace) -> int:
    """Print the resolved job, or every key; returns the exit code."""
    file = read(arguments.job)
    schema = open_schema(file.kind)
    if not arguments.help_keys:
        job, is_open = _resolved(file, schema, arguments.overrides)
        print(config.to_yaml(job), end="")
        if is_open:
            print(f"still to be said: {', '.join(is_open)}", file=sys.stderr)
        return 0
    own = plugins.own_keys(OmegaConf.to_container(file.raw))
    for key in (*describe(schema), *own):
        print(f"{key.name}: {key.type} = {_shown(key.default)}\n    {key.help}")
    return 0


def _resolved(file: JobFile, schema: type[Any], overrides: Sequence[str]) -> tuple[Any, list[str]]:
    """The job, and the keys that it leaves open: `???` is their value."""
    try:
        return file.resolve(schema, overrides), []
    except config.MissingValues as error:
        if error.rest is None:
            raise
        return error.rest, error.keys


def _shown(value: Any) -> str:
    if isinstance(value, list) and any(isinstance(each, Enum) for each in value):
        return f"[{', '.join(map(_shown, value))}]"
    return str(getattr(value, "name", value))
