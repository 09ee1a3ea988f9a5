"""By how much heads on the trained encoder answer more questions rightly than each control, question by
question."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np

from jobs.finetune.evaluate import LAST, PREDICTIONS
from plinth.storage import Storage
from plinth.units import counted
from poma3d.annotations.rows import Question
from poma3d.evaluate.bootstrap import mean_over_scenes
from poma3d.evaluate.config import BootstrapConfig


def gains(runs: Mapping[tuple[str, int], Storage], asked: Sequence[Question], split: str) -> list[str]:
    """A line for each control: the paired difference of the first label's heads to the control's, an average
    over seeds, with its interval over rooms.

    Args:
        runs: of each label and seed.
        asked: the questions of `split`, all with answers.
    """
    numbers = {scene: i for i, scene in enumerate(sorted({q.scene_id for q in asked}))}
    scene_of = np.array([numbers[q.scene_id] for q in asked])
    hits = {key: _hits(storage, asked, split) for key, storage in runs.items()}
    labels, seeds = list(dict.fromkeys(label for label, _ in runs)), sorted({seed for _, seed in runs})
    first, lines = labels[0], []
    for control in labels[1:]:
        gain = np.mean([hits[first, seed] - hits[control, seed] for seed in seeds], axis=0)
        found = mean_over_scenes(gain, scene_of, len(numbers), BootstrapConfig())
        lines.append(
            f"{first} over {control}, {counted(len(seeds), 'seed')}: {100 * found.value:+.1f} points "
            f"[{100 * found.low:+.1f}, {100 * found.high:+.1f}]"
        )
    return lines


def _hits(run: Storage, asked: Sequence[Question], split: str) -> np.ndarray:
    """float64 [Q], 1 where the last checkpoint's first answer is right."""
    lines = run.read(f"{PREDICTIONS}/{split}-{LAST}.jsonl").decode().splitlines()
    said = {line["question_id"]: line["answers"][0] for line in map(json.loads, lines)}
    return np.array([float(said[q.question_id] in q.answers) for q in asked])
