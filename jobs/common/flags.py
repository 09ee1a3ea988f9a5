"""The words of command lines that several commands share: job files with overrides, and storage."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from plinth.storage.options import StorageOptions

KEYS = ("access_key", "secret_key", "session_token")
"""Of an object store; what a job gives as storage.access_key_env and so on."""

Actions = argparse._SubParsersAction  # argparse has no public name for what add_subparsers returns


def add_action(actions: Actions[Any], name: str, text: str) -> argparse.ArgumentParser:
    """An action of a command, such as `list` of `poma runs`.

    Args:
        text: what it does, as a line of the command's help.
    """
    return actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")


def add_job(parser: argparse.ArgumentParser, name: str) -> None:
    """The job file and its overrides, both positional.

    Args:
        name: of the shipped job file that the help shows, without its suffix.
    """
    parser.add_argument("job", type=Path, help=f"job file, or a shipped one by name: @{name}")
    add_overrides(parser, "job")


def add_optional_job(parser: argparse.ArgumentParser, text: str) -> None:
    """The same for a command that also works without a job.

    Args:
        text: which jobs it takes.
    """
    parser.add_argument("job", type=Path, nargs="?", help=text)
    add_overrides(parser, "job")


def add_overrides(parser: argparse.ArgumentParser, whose: str) -> None:
    """`key=value` words."""
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="key=value", help=f"overrides of the {whose}'s keys"
    )


def add_check_inputs(parser: argparse.ArgumentParser) -> None:
    """The flag of commands that build a data set."""
    parser.add_argument(
        "--check-inputs",
        action="store_true",
        help="read every byte of the inputs: record it with a new build, compare it with that of an old one",
    )


def add_storage_flags(parser: argparse.ArgumentParser) -> None:
    """How to reach the object store; credentials come from the environment."""
    parser.add_argument("--endpoint-url", help="S3 endpoint other than AWS's")
    parser.add_argument("--region", help="S3 region")
    parser.add_argument("--profile", help="named profile of the AWS credentials file")
    for what in KEYS:
        text = f"name of the environment variable that holds the {what.replace('_', ' ')}"
        parser.add_argument(f"--{what.replace('_', '-')}-env", metavar="NAME", help=text)


def storage_options(arguments: argparse.Namespace) -> StorageOptions:
    """What the flags say."""
    keys = {f"{what}_env": getattr(arguments, f"{what}_env") for what in KEYS}
    return StorageOptions(
        endpoint_url=arguments.endpoint_url, region=arguments.region, profile=arguments.profile, **keys
    )
