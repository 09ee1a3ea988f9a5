"""What lies at an export's output already: an earlier export of the same format is replaced, nothing else."""

from __future__ import annotations

import json

from jobs.display.text import some
from plinth.errors import ConfigError
from plinth.redaction import printable
from plinth.storage import Storage


def refuse_something_else(output: Storage, file: str, marker: dict[str, str]) -> None:
    """Refuse an output that holds files, and no earlier export of this format.

    Files and folders whose names begin with a dot (a clone's .git, .gitattributes) do not count: an export
    has none.

    Args:
        file: what an export of this format has.
        marker: what the JSON in that file says.

    Raises:
        ConfigError: naming what is there.
    """
    keys = [key for key, _ in output.list() if not key.startswith(".")]
    if not keys or (file in keys and _says(output, file, marker)):
        return
    names = sorted({key.partition("/")[0] for key in keys}, key=lambda name: (name != file, name))
    raise ConfigError(
        f"{output.uri} holds something else ({some([printable(name) for name in names])}).",
        "Give another output; where this is an export of the same format that was cut short, empty it first.",
    )


def _says(output: Storage, file: str, marker: dict[str, str]) -> bool:
    try:
        found = json.loads(output.read(file))
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and all(found.get(key) == value for key, value in marker.items())
