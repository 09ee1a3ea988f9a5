"""A run's kept checkpoints scored on its splits: the best of one split and the last, side by side.

Which checkpoint is best is decided on `qa.select_on` alone. The public code decides on the split that it then
reports; with another split the figure is lower and fairer, so both are named wherever a figure is.

Legend: Q questions, A answers.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jobs.common.devices import own_device
from jobs.common.run_layout import run_storage
from jobs.features.ahead import ahead
from jobs.features.batches import batches
from jobs.finetune.build import build_stage
from jobs.finetune.config import TRAIN, FinetuneJob
from jobs.finetune.numbered import NumberedScenes
from jobs.finetune.questions import Joined
from jobs.finetune.resolve import ResolvedHeads
from jobs.finetune.set_up import kept_scenes
from plinth.checkpoint import save_load as checkpoint
from plinth.checkpoint import store
from plinth.data.shards import RowGroupReader
from plinth.storage import Storage
from poma3d.annotations.rows import Question
from poma3d.evaluate.bootstrap import Estimate, mean_over_scenes
from poma3d.evaluate.config import BootstrapConfig
from poma3d.heads.answers import Answers, question_type
from poma3d.heads.questions import QuestionShape
from poma3d.heads.stage import SITUATION, QuestionStage
from poma3d.sample import decode

RESULT_KEY = "results.json"
PREDICTIONS = "predictions"
BEST, LAST, MAJORITY = "best", "last", "majority of the type"
BATCHES_AHEAD = 2
"""Batches of questions that are read while the head is busy."""


@dataclass(frozen=True)
class Ranked:
    """Classes of each question, best first."""

    sample_ids: list[str]
    classes: np.ndarray
    """int64 [Q, K]."""


@dataclass
class Figures:
    """EM@k of one checkpoint on one split; by type EM@1."""

    step: int | None
    overall: dict[str, Estimate]
    by_type: dict[str, Estimate]

    def to_dict(self) -> dict[str, Any]:
        """For results.json."""
        return {
            "step": self.step,
            "figures": {name: found.to_dict() for name, found in self.overall.items()},
            "by_type": {name: found.to_dict() for name, found in self.by_type.items()},
        }


@dataclass
class SplitResult:
    """What was measured on one split."""

    counts: dict[str, int]
    rows_by_type: dict[str, int]
    figures: dict[str, Figures] = field(default_factory=dict)
    """best, last and the control; empty for a split without answers."""


@dataclass
class Results:
    """Everything that is printed and kept."""

    task: str
    select_on: str
    protocol: dict[str, Any]
    encoder: dict[str, Any]
    selection: dict[int, float]
    """Step of each kept checkpoint -> EM@1 on the split that decides."""
    splits: dict[str, SplitResult]

    def to_dict(self) -> dict[str, Any]:
        """For results.json."""
        return {
            "task": self.task,
            "select_on": self.select_on,
            "protocol": self.protocol,
            "encoder": self.encoder,
            "selection": {str(step): value for step, value in self.selection.items()},
            "splits": {
                name: {
                    "counts": split.counts,
                    "rows_by_type": split.rows_by_type,
                    **{label: figures.to_dict() for label, figures in split.figures.items()},
                }
                for name, split in self.splits.items()
            },
        }


def evaluate(job: FinetuneJob, resolved: ResolvedHeads) -> Results:
    """Choose, measure, write results.json and the predictions.

    Raises:
        CheckpointError: the run has no checkpoint.
    """
    stage, answers = resolved.stage, resolved.answers
    steps = [info.step for info in store.list_checkpoints(stage.checkpoints) if info.is_committed]
    if not steps:
        raise store.no_such(stage.checkpoints, None)
    scorer = Scorer(job, resolved)
    chosen_on = resolved.splits[job.qa.select_on]
    selection = {step: scorer.exact_match(step) for step in steps}
    best = max(steps, key=lambda step: (selection[step], -step))
    result = Results(
        job.qa.task,
        job.qa.select_on,
        _protocol(job),
        chosen_on.source.manifest.attributes["encoder"],
        selection,
        {name: _split_result(job, split) for name, split in resolved.splits.items() if name != TRAIN},
    )
    storage = run_storage(job)
    for label, step in ((BEST, best), (LAST, steps[-1])):
        for name, found in result.splits.items():
            split = resolved.splits[name]
            ranked = scorer.rank(step, name, max(job.evaluate.answers, *job.qa.best))
            _write_predictions(storage, f"{name}-{label}", ranked, split, answers, job.evaluate.answers)
            if any(question.answers for question in split.asked.values()):
                found.figures[label] = _figures(job, ranked, split, answers, step)
    for name, found in result.splits.items():
        if found.figures:
            control = majority(job, resolved.splits[TRAIN], resolved.splits[name], answers)
            found.figures[MAJORITY] = _figures(job, control, resolved.splits[name], answers, None)
    storage.write(RESULT_KEY, (json.dumps(result.to_dict(), indent=1) + "\n").encode())
    return result


class Scorer:
    """The head of a run, with the weights of whichever checkpoint is asked for."""

    def __init__(self, job: FinetuneJob, resolved: ResolvedHeads) -> None:
        self._job, self._resolved = job, resolved
        joined = resolved.splits[TRAIN]
        shape = QuestionShape(**joined.source.manifest.attributes["shape"])
        self._head = build_stage(job, resolved.answers.classes, shape, joined.setup).to(own_device())
        kept = kept_scenes(job.encoder, job.evaluate.batch_size)
        self._stores = {
            name: NumberedScenes(split.setup.numbers, kept)
            for name, split in resolved.splits.items()
            if name != TRAIN and split.setup is not None
        }
        self._step: int | None = None

    def rank(self, step: int, split: str, most: int) -> Ranked:
        """The best `most` classes of every question of a split.

        Raises:
            CheckpointError: no such checkpoint.
        """
        if step != self._step:
            load_head(self._head, self._resolved.stage.checkpoints, step)
            self._step = step
        if self._head.seen is not None:
            self._head.seen.scenes = self._stores[split]
        of, answers = self._resolved.splits[split], self._resolved.answers
        return rank(self._head, of, answers, self._job.evaluate.batch_size, most)

    def exact_match(self, step: int) -> float:
        """EM@1 on `qa.select_on`, over its questions with answers."""
        ranked = self.rank(step, self._job.qa.select_on, 1)
        return float(np.nanmean(hits(ranked, self._judged, self._resolved.answers, 1)))

    def exact_matches(self, step: int) -> dict[str, Estimate]:
        """EM@k on `qa.select_on` for each k of `qa.best`, with intervals over scenes."""
        ranked = self.rank(step, self._job.qa.select_on, max(self._job.qa.best))
        scene_of, scenes = _scenes(ranked, self._judged)
        right = {k: hits(ranked, self._judged, self._resolved.answers, k) for k in self._job.qa.best}
        config = self._job.evaluate.bootstrap
        return {f"EM@{k}": _mean(found, scene_of, scenes, config) for k, found in right.items()}

    @property
    def _judged(self) -> Joined:
        return self._resolved.splits[self._job.qa.select_on]


def load_head(head: QuestionStage, checkpoints: Storage, step: int) -> None:
    """Fill a head with the weights of a checkpoint, in evaluation mode."""
    with tempfile.TemporaryDirectory() as scratch:
        weights = checkpoint.read_full(checkpoints, Path(scratch), step)
    head.load_state_dict(weights)
    head.eval()


@torch.no_grad()
def rank(head: QuestionStage, split: Joined, answers: Answers, batch_size: int, most: int) -> Ranked:
    """The best `most` classes of every question of a split, its first situation asked."""
    device = next(head.head.parameters()).device
    ids: list[str] = []
    found: list[np.ndarray] = []
    read = read_batches(split, batch_size, head.columns())
    made = ((batch_ids, head.prepare(batch)) for batch_ids, batch in read)
    with closing(ahead(made, BATCHES_AHEAD)) as prepared:
        for batch_ids, batch in prepared:
            moved = {name: tensor.to(device) for name, tensor in batch.items()}
            logits = head.answer(head.encoded(moved), moved[SITUATION]).logits
            logits = logits[:, : len(answers.texts)]  # never the impossible class
            best = logits.topk(min(most, logits.shape[1]), dim=1).indices
            found.append(best.cpu().numpy())
            ids += batch_ids
    return Ranked(ids, np.concatenate(found))


def hits(ranked: Ranked, split: Joined, answers: Answers, best: int) -> np.ndarray:
    """float64 [Q]: whether one of the `best` first classes is right; NaN for a question without answers."""
    out = np.full(len(ranked.sample_ids), np.nan)
    for i, sample_id in enumerate(ranked.sample_ids):
        question = split.asked[sample_id]
        if question.answers:
            out[i] = bool(set(ranked.classes[i, :best].tolist()) & set(answers.right(question.answers)))
    return out


def majority(job: FinetuneJob, training: Joined, split: Joined, answers: Answers) -> Ranked:
    """The commonest training answers of each question's type: what can be had without looking or reading
    on."""
    counts: dict[str, Counter[int]] = {}
    overall: Counter[int] = Counter()
    for question in training.asked.values():
        of_type = counts.setdefault(_type(job, question), Counter())
        for right in answers.right(question.answers):
            of_type[right] += 1
            overall[right] += 1
    most = min(max(job.qa.best), len(answers.texts))

    def best(kind: str) -> list[int]:
        ordered = [c for c, _ in counts.get(kind, overall).most_common()]
        ordered += [c for c, _ in overall.most_common() if c not in ordered]
        return (ordered + [c for c in range(len(answers.texts)) if c not in set(ordered)])[:most]

    cached = {kind: best(kind) for kind in {_type(job, q) for q in split.asked.values()}}
    rows = [cached[_type(job, question)] for question in split.asked.values()]
    return Ranked(list(split.asked), np.array(rows, np.int64))


def read_batches(
    split: Joined, size: int, columns: Sequence[str]
) -> Iterator[tuple[list[str], dict[str, torch.Tensor]]]:
    """Sample ids and columns of a split, `size` questions at a time, in the order of its shards."""
    reader = RowGroupReader(split.source.storage)
    for shard in split.source.manifest.shards:
        for table in batches(reader, shard, ["sample_id", *columns], size):
            arrays = decode(table, columns)
            ids = table.column("sample_id").to_pylist()
            yield ids, {name: torch.from_numpy(np.array(arrays[name])) for name in columns}


def _figures(job: FinetuneJob, ranked: Ranked, split: Joined, answers: Answers, step: int | None) -> Figures:
    scene_of, scenes = _scenes(ranked, split)
    config = job.evaluate.bootstrap
    overall = {}
    for k in job.qa.best:
        found = hits(ranked, split, answers, k)
        overall[f"EM@{k}"] = _mean(found, scene_of, scenes, config)
    first = hits(ranked, split, answers, 1)
    types = np.array([_type(job, split.asked[i]) for i in ranked.sample_ids])
    by_type = {
        str(kind): _mean(np.where(types == kind, first, np.nan), scene_of, scenes, config)
        for kind in sorted(set(types.tolist()))
        if np.isfinite(first[types == kind]).any()
    }
    return Figures(step, overall, by_type)


def _mean(values: np.ndarray, scene_of: np.ndarray, scenes: int, config: BootstrapConfig) -> Estimate:
    known = np.isfinite(values)
    return mean_over_scenes(values[known], scene_of[known], scenes, config)


def _scenes(ranked: Ranked, split: Joined) -> tuple[np.ndarray, int]:
    names = [split.asked[sample_id].scene_id for sample_id in ranked.sample_ids]
    number = {name: i for i, name in enumerate(sorted(set(names)))}
    return np.array([number[name] for name in names]), len(number)


def _split_result(job: FinetuneJob, split: Joined) -> SplitResult:
    types = Counter(_type(job, question) for question in split.asked.values())
    return SplitResult(split.counts, dict(sorted(types.items())))


def _type(job: FinetuneJob, question: Question) -> str:
    return question_type(question.question, job.qa.question_types, question.question_type)


def _protocol(job: FinetuneJob) -> dict[str, Any]:
    return {
        name: getattr(job.qa, name)
        for name in ("select_on", "unknown_answers", "text_joiner", "situations", "question_types")
    }


def _write_predictions(
    storage: Storage, name: str, ranked: Ranked, split: Joined, answers: Answers, most: int
) -> None:
    """JSON lines `{question_id, answers: [best first]}`."""
    storage.write(f"{PREDICTIONS}/{name}.jsonl", "".join(_lines(ranked, split, answers.texts, most)).encode())


def _lines(ranked: Ranked, split: Joined, texts: Sequence[str], most: int) -> Iterator[str]:
    for sample_id, classes in zip(ranked.sample_ids, ranked.classes, strict=True):
        line = {
            "question_id": split.asked[sample_id].question_id,
            "answers": [texts[c] for c in classes[:most].tolist()],
        }
        yield json.dumps(line, ensure_ascii=False) + "\n"
