"""The work on one shard of questions: prompts -> language model -> answers, in their commit."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

from jobs.common.ray_data import Loaded
from jobs.features.batches import batches
from jobs.finetune.llm.answers import LlmRun, open_run, read_batch, said
from jobs.generate.config import GenerateJob
from plinth.data.manifest import ShardEntry
from plinth.data.shards import RowGroupReader
from plinth.digests import text_digest
from plinth.storage import Storage
from poma3d.llm.conversations import COLUMNS

COMMITS = "answers/commits"
KEY = "asked"
"""Of the scenes in the job, for messages."""
NAME_BYTES = 12


@dataclass(frozen=True)
class GenerateWork:
    """What all shards of a kind share; picklable."""

    job: GenerateJob
    """With absolute paths."""
    kind: str
    step: int
    questions: Storage
    """The data set of questions in tokens."""
    output: Storage
    recipe: str
    """Fingerprint of what decides the answers."""

    def name(self, entry: ShardEntry) -> str:
        """Hash of all that decides what a shard becomes."""
        return text_digest(f"{self.recipe} {entry.sha256}", NAME_BYTES)


def commit_key(name: str) -> str:
    """Where the answers of a shard are."""
    return f"{COMMITS}/{name}.json"


def load(work: GenerateWork) -> LlmRun:
    """The model of a job, loaded once per process."""
    job = work.job
    return _loaded.get(
        (work.recipe, work.output.uri), lambda: open_run(job.run, job.storage, job.asked, KEY, work.step)
    )


_loaded: Loaded[LlmRun] = Loaded()


def answer_shard(work: GenerateWork, entry: ShardEntry) -> str:
    """Answer the questions of a shard and write the commit with the answers; returns its name."""
    run = load(work)
    began, lines = time.perf_counter(), []
    columns = ["sample_id", "scene_id", *COLUMNS]
    for table in batches(RowGroupReader(work.questions), entry, columns, work.job.batch_size):
        texts = said(run, read_batch(table), work.job.max_tokens)
        ids = zip(table["sample_id"].to_pylist(), table["scene_id"].to_pylist(), strict=True)
        for (sample_id, scene_id), text in zip(ids, texts, strict=True):
            question_id = sample_id.removeprefix(f"{work.kind}/{scene_id}/")
            lines.append({"question_id": question_id, "answer": text})
    name = work.name(entry)
    commit = {"answers": lines, "wall_s": time.perf_counter() - began}
    work.output.write(commit_key(name), json.dumps(commit, ensure_ascii=False).encode())
    return name
