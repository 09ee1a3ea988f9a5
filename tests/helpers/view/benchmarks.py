"""Scenes whose features are known, for tests of the benchmarks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jobs.evaluate.measure import MODEL, Features
from poma3d.sample import Sample
from tests.helpers.view.scenes import sample

WIDTH = 8


def scenes(*names: str, views: int = 4) -> list[Sample]:
    """Rooms with four cameras each."""
    return [sample(name, views) for name in names]


def features(samples: Sequence[Sample], at: Sequence[Sequence[int]]) -> Features:
    """Views as unit vectors: view v of sample s points along axis at[s][v]."""
    views = np.stack([np.eye(WIDTH, dtype=np.float32)[list(row)] for row in at])
    return Features({MODEL: views}, np.stack([s.view_valid for s in samples]))


def encode(texts: Sequence[str], long: bool) -> np.ndarray:
    """The mean of the axes that are the digits in a text, of unit length."""
    rows = []
    for text in texts:
        row = sum((np.eye(WIDTH)[int(c)] for c in text if c.isdigit()), np.zeros(WIDTH))
        rows.append(row / max(float(np.linalg.norm(row)), 1e-9))
    return np.array(rows)


def json_lines(path: Path, rows: Sequence[dict[str, Any]]) -> str:
    """A file of JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)
