"""No secret leaves with a submitted job: Ray lists a job's command, environment and files to whoever asks.

What looks like a secret in the job file, in an override or in `--env` is refused by its key. The nodes have
secrets of their own: variables that the job names, a Kubernetes secret, a profile, an instance role.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from plinth.errors import ConfigError
from plinth.redaction import is_secret_name, redact

NAMED = "_env"
"""Keys that end so hold the name of a variable."""
BY_REFERENCE = (
    "Refer to it: storage.access_key_env=NAME and storage.secret_key_env=NAME for variables that are set on "
    "the nodes (in Kubernetes from a secret), storage.profile=NAME for a profile there, or none of them "
    "where the nodes have an instance role."
)
BY_NODE = (
    "Set it where the nodes are started (in Kubernetes from a secret), or give the nodes an instance role; "
    "--env is for what may be read by all."
)
_VARIABLE = re.compile(r"[A-Za-z_]\w*")
_RANDOM = re.compile(r"(?!/)(?=.*\d)(?=.*[a-z])(?=.*[A-Z])(?:[A-Za-z0-9+]{32,}={0,2}|[A-Za-z0-9+/]{40})")
"""Words that nobody has chosen: long, of digits, small and large letters. Commits and hashes have no large
ones, and paths begin with a slash."""


def refuse_secrets(raw: DictConfig, origin: str) -> None:
    """Refuse a job that holds a secret.

    Args:
        raw: the YAML as it was written, not compared with any schema.
        origin: the file, to name in an error.

    Raises:
        ConfigError: naming the key, never the value.
    """
    for key, value in _leaves(OmegaConf.to_container(raw)):
        if _is_secret(key, value):
            raise ConfigError(f"{origin}: {key} holds a secret (not shown).", BY_REFERENCE)


def refuse_secret_overrides(overrides: Sequence[str]) -> None:
    """Refuse `key=value` words that hold a secret.

    Raises:
        ConfigError: naming the key, never the value.
    """
    for override in overrides:
        key, _, value = override.partition("=")
        if _is_secret(key, value):
            raise ConfigError(f"the override of {redact(key)} holds a secret (not shown).", BY_REFERENCE)


def environment(given: Sequence[str]) -> dict[str, str]:
    """NAME=VALUE words as a dict.

    Raises:
        ConfigError: not of that form, or a secret.
    """
    found = {}
    for word in given:
        name, equals, value = word.partition("=")
        if not equals or not _VARIABLE.fullmatch(name):
            raise ConfigError("--env is expected as NAME=VALUE, such as --env NCCL_DEBUG=INFO.")
        if _is_secret(name, value):
            raise ConfigError(f"--env {name} holds a secret (not shown).", BY_NODE)
        found[name] = value
    return found


def _is_secret(key: str, value: str) -> bool:
    name = key.rpartition(".")[2]
    if name.endswith(NAMED):
        return redact(value) != value
    said = f"{name}={value}"
    return is_secret_name(name) or redact(said) != said or bool(_RANDOM.fullmatch(value))


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Texts with their dotted keys; other values are too short for a secret."""
    if isinstance(value, dict):
        for name, below in value.items():
            yield from _leaves(below, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for i, below in enumerate(value):
            yield from _leaves(below, f"{key}[{i}]")
    elif isinstance(value, str):
        yield key, value
