"""Where the results of an evaluation are kept: one file for each data set, checkpoint and date.

`evaluations/DATA-ENCODER-DATE.json` is never written over; `evaluation.json` is the same as the newest.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

from jobs.common.datasets import Dataset
from jobs.runs.started import command_line
from plinth.storage import Storage
from poma3d.export import SceneEncoder

NEWEST = "evaluation.json"
FOLDER = "evaluations"
STAMP = "%Y%m%dT%H%M%SZ"
HASH_CHARACTERS = 8


def keep(
    output: Storage,
    data: str,
    dataset: Dataset,
    encoder: SceneEncoder,
    results: dict[str, Any],
    now: datetime | None = None,
) -> str:
    """Write the results with what they are of; returns the key of their own file.

    Args:
        data: the data set as the job names it, with its version.
        now: asked for when None.
    """
    at = now or datetime.now(UTC)
    about = {
        "data": {"uri": data, "hash": dataset.manifest.hash},
        "encoder": encoder.provenance.run or "an encoder that does not say where it comes from",
        "teacher": {"name": encoder.provenance.teacher, "revision": encoder.provenance.teacher_revision},
        "date": at.isoformat(timespec="seconds"),
        "command": command_line(),
    }
    text = (json.dumps({"about": about, **results}, indent=1, allow_nan=True) + "\n").encode()
    name = data.rstrip("/").rsplit("/", 1)[-1]
    which = encoder.provenance.run.rsplit("/", 1)[-1] or "encoder"
    parts = (_slug(name), dataset.manifest.hash[:HASH_CHARACTERS], _slug(which), at.strftime(STAMP))
    stem = f"{FOLDER}/{'-'.join(parts)}"
    key, again = f"{stem}.json", 1
    while output.exists(key):
        again += 1
        key = f"{stem}-{again}.json"
    output.write(key, text)
    output.write(NEWEST, text)
    return key


def _slug(text: str) -> str:
    """Letters, digits and dots of a name, joined by dashes."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", text).strip("-") or "unnamed"
