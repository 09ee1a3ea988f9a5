"""What heads learn on the demo's encoder: rooms that nothing has trained on, with the controls, by question
type.

    poma demo
    python -m benchmarks.questions [questions] [--folder demo] [--seeds 0 1 2] [--steps 800]
    python -m benchmarks.questions navigation [--rooms 1024]

`questions` trains heads of `jobs/configs/qa_rooms.yaml`, on all types of questions and the features of views;
`navigation` those of `navigation_rooms.yaml`, on directions alone and cells of space around whoever asks.

Each column is a head, trained on the questions about the training rooms;
each cell is the last checkpoint's EM@1 on the held-out rooms in percent, an average over seeds, with the 95
% interval over rooms of the first seed. Nothing is chosen on the held-out rooms.

    encoder           the run's target encoder
    untrained         the same before training: the teacher's image tower on point maps
    shuffled          the encoder's features, but every question sees another room
    question only     no room at all
    majority          the commonest answer of the question's type

The last lines say by how much heads on the encoder are right more often than those of each control, question
by question, an average over seeds with its interval over rooms. What is finished is not done again.

With `--rooms` the heads are asked about so many other rooms that nothing has seen, made by the benchmark: ten
times the rooms, a third of the interval.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.questions.gains import gains
from jobs.common.cluster import ray_cluster
from jobs.common.run_layout import CONFIGS, run_storage
from jobs.demo.config import DemoJob
from jobs.features import command as features
from jobs.features.config import FeaturesJob, Weights
from jobs.finetune import command as finetune
from jobs.finetune.config import TEST, TRAIN, VAL, FinetuneJob, SplitConfig
from jobs.finetune.evaluate import LAST, MAJORITY, RESULT_KEY
from jobs.ingest import command as ingest
from jobs.jobfile import load
from jobs.questions import command as questions
from jobs.questions.arguments import PER_TYPE
from jobs.questions.tower import write_tower
from plinth.launch.config import Workers
from plinth.storage import Storage, StorageOptions
from poma3d.annotations import rooms
from poma3d.heads.config import QUESTION, SEPARATE, HeadSceneConfig
from poma3d.seen.config import VOXELS
from poma3d.synthetic.questions import EIGHT, FOUR, SIDE, TYPES

SPLITS = {TRAIN: "rooms", VAL: "held_out"}
MORE_FIRST = 2_000_000
"""Index of the first of more rooms; the demo's held-out rooms begin at a million."""


@dataclass(frozen=True)
class Grid:
    """What heads are trained on."""

    job: str
    """Of `jobs/configs`."""
    kinds: tuple[str, ...]
    """Types of questions."""
    prefix: str
    """Of what is made and trained in the demo's folder."""
    patches: bool
    """Whether the heads see cells, made of patches."""


GRIDS = {
    "questions": Grid("qa_rooms.yaml", TYPES, "", False),
    "navigation": Grid("navigation_rooms.yaml", (SIDE, FOUR, EIGHT), "ways-", True),
}
COLUMNS = ("encoder", "untrained", "shuffled", "question only")
ALL = "EM@1"


def main() -> None:
    """Run what is missing of the grid and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("grid", nargs="?", choices=list(GRIDS), default="questions")
    parser.add_argument("--folder", type=Path, default=Path("demo"), help="of `poma demo`")
    parser.add_argument("--run", default="demo", help="name of its pretraining run")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, help="of each head, in place of the job's")
    parser.add_argument("--workers", type=int, help="0 trains in this process, without Ray; else the job's")
    parser.add_argument("--rooms", type=int, help="other rooms to ask about, in place of the demo's held-out")
    arguments = parser.parse_args()
    grid = GRIDS[arguments.grid]
    data = SPLITS if arguments.rooms is None else SPLITS | {TEST: f"held_out-{arguments.rooms}"}
    judged = list(data)[-1]
    job = load(FinetuneJob, CONFIGS / grid.job)
    if arguments.steps is not None:
        job.heads = replace(job.heads, steps=arguments.steps)
        job.checkpoint = replace(job.checkpoint, every_steps=arguments.steps)
    if arguments.workers is not None:
        job.fit = replace(job.fit, workers=Workers(arguments.workers, arguments.workers))
    if arguments.rooms is not None:
        more_rooms(arguments.folder / "data" / data[TEST], arguments.rooms)
    prepare(grid, arguments.folder, arguments.run, data)
    results: dict[str, Any] = {}
    runs: dict[tuple[str, int], Storage] = {}
    asked = rooms.read([_questions(grid, arguments.folder, data[judged])]).questions
    with ray_cluster(job.ray, job.fit.workers.max):
        for seed in arguments.seeds:
            for label, variant in variants(grid, job, arguments.folder, seed, data):
                storage = run_storage(variant)
                if judged not in _scored(storage):
                    finetune.run_job(variant)
                results[f"{label}/{seed}"] = _scored(storage)[judged]
                runs[label, seed] = storage
            print("\n".join([table(results), "", *gains(runs, asked, judged)]), flush=True)


def more_rooms(output: Path, count: int) -> None:
    """Other rooms, made as the demo makes those that it holds out."""
    job: DemoJob = load(DemoJob, CONFIGS / "demo.yaml")
    own = job.held_out.reader.rooms
    reader = replace(job.held_out.reader, rooms=replace(own, rooms=count, first=MORE_FIRST))
    ingest.run_job(replace(job.held_out, output=str(output), reader=reader))


def _scored(run: Storage) -> dict[str, Any]:
    """What the run's results say of each split; nothing of a run that has none."""
    if not run.exists(RESULT_KEY):
        return {}
    found: dict[str, Any] = json.loads(run.read(RESULT_KEY))["splits"]
    return found


def prepare(grid: Grid, folder: Path, run: str, sets: Mapping[str, str]) -> None:
    """Questions, features of both encoders and the text tower."""
    for data in sets.values():
        for weights in Weights:
            features.features(
                FeaturesJob(
                    encoder=str(folder / "runs" / run),
                    weights=weights,
                    data=str(folder / "data" / data),
                    output=str(_features(grid, folder, data, weights)),
                    patches=grid.patches,
                    workers=0,
                )
            )
        asked = questions.ask(str(folder / "data" / data), StorageOptions(), PER_TYPE, 0, list(grid.kinds))
        _questions(grid, folder, data).write_text(rooms.write(asked))
        if data == sets[TRAIN]:
            write_tower(asked, folder / f"{grid.prefix}tower", 0)


def _features(grid: Grid, folder: Path, data: str, weights: Weights) -> Path:
    return folder / ("patches" if grid.patches else "features") / f"{data}-{weights.value}"


def _questions(grid: Grid, folder: Path, data: str) -> Path:
    return folder / f"{grid.prefix or 'questions-'}{data}.jsonl"


def variants(
    grid: Grid, job: FinetuneJob, folder: Path, seed: int, sets: Mapping[str, str]
) -> list[tuple[str, FinetuneJob]]:
    """The columns of the table for one seed."""
    blind = replace(job.head, inputs=QUESTION, attention=SEPARATE)

    def of(label: str, weights: Weights, scene: HeadSceneConfig, **changes: Any) -> tuple[str, FinetuneJob]:
        splits = {
            name: SplitConfig(
                [str(_questions(grid, folder, data))],
                [str(_features(grid, folder, data, weights))],
                [str(folder / "data" / data)] if scene.tokens == VOXELS else [],
            )
            for name, data in sets.items()
        }
        made = replace(
            job, name=f"{grid.prefix or 'qa-'}{label.replace(' ', '-')}-seed{seed}",
            output=str(folder / "heads"), seed=seed, scene=scene,
            text=replace(job.text, source=str(folder / f"{grid.prefix}tower")),
        )  # fmt: skip
        return label, replace(made, **splits, **changes)

    return [
        of("encoder", Weights.trained, job.scene),
        of("untrained", Weights.untrained, job.scene),
        of("shuffled", Weights.trained, job.scene, shuffle_scenes=True),
        of("question only", Weights.trained, HeadSceneConfig(), head=blind),
    ]


def table(results: dict[str, Any]) -> str:
    """Markdown: a line per question type."""
    first = next(iter(results.values()))
    lines = ["| questions | " + " | ".join(COLUMNS) + " | majority |", "|---" * (len(COLUMNS) + 2) + "|"]
    for kind in (ALL, *first["rows_by_type"]):
        count = first["counts"]["rows"] if kind == ALL else first["rows_by_type"][kind]
        cells = [_cell(results, label, kind) for label in COLUMNS]
        majority = 100 * _figure(first[MAJORITY], kind)["value"]
        lines.append(
            f"| {'all' if kind == ALL else kind} ({count}) | " + " | ".join(cells) + f" | {majority:.1f} |"
        )
    return "\n".join(lines)


def _cell(results: dict[str, Any], label: str, kind: str) -> str:
    of_seeds = [found[LAST] for name, found in results.items() if name.startswith(f"{label}/")]
    values = [100 * _figure(found, kind)["value"] for found in of_seeds]
    interval = _figure(of_seeds[0], kind)
    return f"{np.mean(values):.1f} [{100 * interval['low']:.1f}, {100 * interval['high']:.1f}]"


def _figure(found: dict[str, Any], kind: str) -> dict[str, float]:
    figure: dict[str, float] = found["figures"][ALL] if kind == ALL else found["by_type"][kind]
    return figure


if __name__ == "__main__":
    main()
