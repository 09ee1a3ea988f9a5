"""How to reach an object store. Options name where the secrets are and never hold them."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any

from plinth.counts import Count, CountOrZero
from plinth.errors import ConfigError, StorageError

S3_SECRETS = {"key": "access_key_env", "secret": "secret_key_env", "token": "session_token_env"}
"""Argument of s3fs -> option that names its environment variable."""
_ENVIRONMENT_NAME = re.compile(r"[A-Z_][A-Z0-9_]*")


@dataclass(frozen=True)
class StorageOptions:
    """How to reach an object store. Local paths need none of it."""

    endpoint_url: str | None = None
    """URL of an S3-compatible server; empty for AWS itself."""
    region: str | None = None
    """Region of the bucket; empty to let the client find it."""
    profile: str | None = None
    """Profile of the AWS credentials file to use."""
    access_key_env: str | None = None
    """Name of the environment variable that holds the access key; empty for the client's own chain
    (AWS_ACCESS_KEY_ID, profile, instance role)."""
    secret_key_env: str | None = None
    """Name of the environment variable that holds the secret key."""
    session_token_env: str | None = None
    """Name of the environment variable that holds a session token, where there is one."""
    connect_timeout_s: float = 10.0
    """How long to wait for a connection."""
    read_timeout_s: float = 60.0
    """How long to wait for the next bytes of an answer."""
    retries: CountOrZero = 6
    """How many times a transient failure is retried."""
    backoff_s: float = 0.3
    """Upper bound of the first wait between tries; the wait is random, and the bound doubles each time."""
    max_backoff_s: float = 10.0
    """Upper bound of any wait between tries."""
    max_connections: Count = 32
    """Connections that a process keeps open to the object store."""


def validate(options: StorageOptions) -> None:
    """Refuse options that contradict each other.

    Raises:
        ConfigError: naming the field. Values that may be secrets are not repeated.
    """
    for name in S3_SECRETS.values():
        value = getattr(options, name)
        if value is not None and not is_environment_name(value):
            raise ConfigError(
                f"storage.{name} is not a name of an environment variable (not shown: it may be a secret).",
                "Put the secret in the environment and write the variable's name here, e.g. MY_SECRET_KEY.",
            )
    if (options.access_key_env is None) != (options.secret_key_env is None):
        raise ConfigError(
            "storage.access_key_env and storage.secret_key_env come as a pair, only one is set.",
            "Set both, or neither to use the client's own chain.",
        )
    if options.retries < 0:
        raise ConfigError(f"storage.retries is {options.retries}, expected 0 or more.")


def s3_arguments(options: StorageOptions) -> dict[str, Any]:
    """Arguments for s3fs.

    Raises:
        StorageError: an environment variable is not set.
    """
    arguments: dict[str, Any] = {}
    for argument, field in S3_SECRETS.items():
        name = getattr(options, field)
        if name is not None:
            arguments[argument] = os.environ.get(name)
            if not arguments[argument]:
                raise missing_environment(field, name)
    if options.profile is not None:
        arguments["profile"] = options.profile
    client: dict[str, Any] = {
        "connect_timeout": options.connect_timeout_s,
        "read_timeout": options.read_timeout_s,
        "retries": {"mode": "standard", "total_max_attempts": 1},
        "max_pool_connections": options.max_connections,
    }
    if options.endpoint_url is not None:
        arguments["endpoint_url"] = options.endpoint_url
        # Servers other than AWS need not resolve bucket.host, nor know the newest checksum headers.
        client["s3"] = {"addressing_style": "path"}
        client["request_checksum_calculation"] = "when_required"
        client["response_checksum_validation"] = "when_required"
    arguments["config_kwargs"] = client
    if options.region is not None:
        arguments["client_kwargs"] = {"region_name": options.region}
    return arguments


def is_environment_name(text: str) -> bool:
    """Whether `text` can be the name of an environment variable (upper case: secrets seldom are)."""
    return _ENVIRONMENT_NAME.fullmatch(text) is not None


def missing_environment(field: str, name: str) -> StorageError:
    """The error for a credential whose environment variable is not set."""
    return StorageError(
        f"The environment variable {name} (storage.{field}) is not set in this process.",
        f"export {name}=... before starting; with a cluster, before `ray start` on every node.",
    )


@dataclass
class LockConfig:
    """How a run makes sure that no other process writes to it."""

    beat_every_s: float = 5.0
    """Seconds between two heartbeats."""
    dead_after_s: float = 30.0
    """A holder without a heartbeat for this long counts as dead."""

    def validate(self) -> None:
        """Raise a ConfigError that names a value out of range."""
        if not 0 < self.beat_every_s < self.dead_after_s / 2:
            raise ConfigError(
                f"lock.beat_every_s is {self.beat_every_s}, expected more than 0 and less than half of "
                f"lock.dead_after_s {self.dead_after_s}."
            )
