"""Labels of Ray's nodes, as job files name them: `key=value`, such as `poma-role=train`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from plinth.errors import ConfigError


def label_selector(label: str | None) -> dict[str, str] | None:
    """`key=value` as the mapping that Ray takes."""
    if label is None:
        return None
    key, _, value = label.partition("=")
    return {key: value}


def nodes_with(label: str | None, nodes: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those of `ray.nodes()` that live and have the label; all that live without one."""
    wanted = label_selector(label) or {}
    return [node for node in nodes if node["Alive"] and wanted.items() <= node.get("Labels", {}).items()]


def refuse_bad_label(key: str, label: str | None) -> None:
    """Refuse what is no `key=value`.

    Raises:
        ConfigError: naming the key of the job.
    """
    if label is not None and not all(label.partition("=")):
        raise ConfigError(f"{key} is {label!r}, expected key=value, such as poma-role=data.")
