"""A small language model from scratch, with its encoder, asked about rooms that nothing has trained on.

    poma demo
    python -m benchmarks.llm rooms [key=value ...] [--folder demo] [--seeds 0 1 2] [--steps 1500]

Each column is a model of `jobs/configs/llm_rooms.yaml`, trained on the questions about the training rooms;
each cell is the share of the questions about the held-out rooms that the last checkpoint answers word for
word, in percent, an average over seeds, with the 95 % interval over rooms of the first seed. Nothing is
chosen on the held-out rooms.

    scene         encoder, projector and language model are trained together
    no scene      the same language model without any scene token
    majority      the commonest answer of the question's type

The last line says by how much the scene helps, with the interval of the paired difference over rooms and
seeds. What is finished is not done again.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from jobs.common.cluster import ray_cluster
from jobs.common.run_layout import CONFIGS, run_storage
from jobs.finetune.llm import command as finetune
from jobs.finetune.llm import conversations
from jobs.finetune.llm.answers import answers, open_run
from jobs.finetune.llm.config import ConversationsConfig, FinetuneLlmJob, SeenConfig
from jobs.jobfile import load
from jobs.questions import command as questions
from jobs.questions.arguments import PER_TYPE
from plinth.launch.config import Workers
from plinth.storage import StorageOptions
from plinth.units import counted
from poma3d.annotations import rooms
from poma3d.annotations.rows import Question
from poma3d.evaluate.bootstrap import mean_over_scenes
from poma3d.evaluate.config import BootstrapConfig
from poma3d.seen.config import NONE
from poma3d.synthetic.questions import TYPES

TRAIN, HELD_OUT = "rooms", "held_out"
SCENE, NO_SCENE = "scene", "no scene"
ALL = "all"
ANSWERS_KEY = "answers-held_out.json"
BOOTSTRAP = BootstrapConfig()


def main(words: Sequence[str]) -> None:
    """Run what is missing of the grid and print the table."""
    parser = argparse.ArgumentParser(prog="benchmarks.llm rooms", description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("demo"), help="of `poma demo`")
    parser.add_argument("--run", default="demo", help="name of its pretraining run")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, help="of each model, in place of the job's")
    parser.add_argument("--workers", type=int, help="0 trains in this process, without Ray; else the job's")
    parser.add_argument("--batch", type=int, default=64, help="questions that are answered at once")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="overrides of the job's keys")
    arguments = parser.parse_args(words)
    job = load(FinetuneLlmJob, CONFIGS / "llm_rooms.yaml", arguments.overrides)
    if arguments.steps is not None:
        job.training = replace(job.training, steps=arguments.steps)
        job.checkpoint = replace(job.checkpoint, every_steps=arguments.steps)
        job.optim = replace(job.optim, warmup_steps=min(job.optim.warmup_steps, arguments.steps // 4))
    if arguments.workers is not None:
        job.fit = replace(job.fit, workers=Workers(arguments.workers, arguments.workers))
    asked = {data: _questions(arguments.folder, data) for data in (TRAIN, HELD_OUT)}
    found: dict[tuple[str, int], dict[str, str]] = {}
    with ray_cluster(job.ray, job.fit.workers.max):
        for seed in arguments.seeds:
            for label in (SCENE, NO_SCENE):
                variant = variant_of(job, arguments.folder, arguments.run, label, seed)
                found[label, seed] = _answered(variant, arguments.folder, arguments.batch)
            print(table(found, asked[TRAIN], asked[HELD_OUT]), flush=True)


def variant_of(job: FinetuneLlmJob, folder: Path, run: str, label: str, seed: int) -> FinetuneLlmJob:
    """The job of a column for one seed."""
    scenes = [str(folder / "data" / TRAIN)]
    asked = [ConversationsConfig(kind=rooms.KIND, annotations=[str(_file(folder, TRAIN))])]
    named = replace(
        job, name=f"llm-{label.replace(' ', '-')}-seed{seed}", output=str(folder / "llm"), seed=seed
    )
    if label == NO_SCENE:
        scene = replace(job.scene, tokens=NONE)
        return replace(named, scene=scene, encoder=None, train=SeenConfig(conversations=asked))
    assert job.encoder is not None
    encoder = replace(job.encoder, source=str(folder / "runs" / run))
    return replace(named, encoder=encoder, train=SeenConfig(conversations=asked, scenes=scenes))


def table(
    found: dict[tuple[str, int], dict[str, str]], training: Sequence[Question], asked: Sequence[Question]
) -> str:
    """Markdown: a line per question type, and the difference that the scene makes."""
    lines = [f"| questions | {SCENE} | {NO_SCENE} | majority |", "|---|---|---|---|"]
    types = np.array([q.question_type for q in asked])
    common = _majority(training)
    hits = {key: np.array([said[q.question_id] in q.answers for q in asked]) for key, said in found.items()}
    of_majority = np.array([common[q.question_type] in q.answers for q in asked])
    for kind in (ALL, *sorted(set(types.tolist()))):
        chosen = np.ones(len(asked), bool) if kind == ALL else types == kind
        cells = [_cell(hits, label, chosen, asked) for label in (SCENE, NO_SCENE)]
        lines.append(
            f"| {kind} ({int(chosen.sum())}) | {' | '.join(cells)} | {100 * of_majority[chosen].mean():.1f} |"
        )
    seeds = sorted({seed for _, seed in hits})
    gain = np.mean([hits[SCENE, s].astype(float) - hits[NO_SCENE, s] for s in seeds], axis=0)
    of_gain = mean_over_scenes(gain, *_scenes(asked), BOOTSTRAP)
    lines += [
        "",
        f"scene over no scene, {counted(len(seeds), 'seed')}: {100 * of_gain.value:+.1f} points "
        f"[{100 * of_gain.low:+.1f}, {100 * of_gain.high:+.1f}]",
    ]
    return "\n".join(lines)


def _answered(job: FinetuneLlmJob, folder: Path, batch: int) -> dict[str, str]:
    """Question id -> answer about the held-out rooms; trains first where that is not done."""
    storage = run_storage(job)
    if not storage.exists(ANSWERS_KEY):
        finetune.run_job(job)
        asked = ConversationsConfig(kind=rooms.KIND, annotations=[str(_file(folder, HELD_OUT))])
        scenes = [] if job.encoder is None else [str(folder / "data" / HELD_OUT)]
        seen = SeenConfig(conversations=[asked], scenes=scenes)
        options = StorageOptions()
        said = conversations.read(asked, job.chat.text_joiner, None, options, HELD_OUT)
        run = open_run(storage.uri, options, seen, HELD_OUT)
        made = {
            each.question_id: text for each, text in answers(run, said, batch, job.chat.max_answer_tokens)
        }
        storage.write(ANSWERS_KEY, json.dumps(made, indent=1).encode())
    read: dict[str, str] = json.loads(storage.read(ANSWERS_KEY))
    return read


def _questions(folder: Path, data: str) -> list[Question]:
    if not _file(folder, data).exists():
        asked = questions.ask(str(folder / "data" / data), StorageOptions(), PER_TYPE, 0, list(TYPES))
        _file(folder, data).write_text(rooms.write(asked))
    return rooms.read([_file(folder, data)]).questions


def _file(folder: Path, data: str) -> Path:
    return folder / f"questions-{data}.jsonl"


def _majority(training: Sequence[Question]) -> dict[str, str]:
    counts: dict[str, Counter[str]] = {}
    for question in training:
        counts.setdefault(question.question_type, Counter()).update(question.answers)
    return {kind: of_kind.most_common(1)[0][0] for kind, of_kind in counts.items()}


def _cell(
    hits: dict[tuple[str, int], np.ndarray], label: str, chosen: np.ndarray, asked: Sequence[Question]
) -> str:
    of_seeds = [found[chosen].astype(float) for (column, _), found in sorted(hits.items()) if column == label]
    numbers, count = _scenes([q for q, is_chosen in zip(asked, chosen, strict=True) if is_chosen])
    interval = mean_over_scenes(of_seeds[0], numbers, count, BOOTSTRAP)
    value = 100 * np.mean([found.mean() for found in of_seeds])
    return f"{value:.1f} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def _scenes(asked: Sequence[Question]) -> tuple[np.ndarray, int]:
    numbers = {scene: i for i, scene in enumerate(sorted({q.scene_id for q in asked}))}
    return np.array([numbers[q.scene_id] for q in asked]), len(numbers)
