"""`poma generate`: questions about scenes -> what a trained language model answers, for `poma score`.

    output/
      questions/            the questions in tokens
      answers/record.json   whose answers these are
      answers/commits/      a file for each shard of questions that is answered
      KIND.jsonl            `{question_id, answer}`, when all are

Kill it at any time and run the same command: what has a commit is not answered again.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

from jobs.common.cluster import ray_cluster
from jobs.common.objects import digest, read_many
from jobs.common.ray_data import Pool, make_shards
from jobs.common.run_layout import TRAINING
from jobs.finetune.llm import rows
from jobs.finetune.llm.answers import read_job
from jobs.finetune.llm.config import validate_seen
from jobs.finetune.llm.resolve import chat_of, check_length, read_all, scenes_of, set_up
from jobs.generate.config import GenerateJob
from jobs.generate.record import claim, record_of
from jobs.generate.tasks import COMMITS, KEY, GenerateWork, answer_shard, commit_key, load
from jobs.jobfile import asked
from plinth.checkpoint import store
from plinth.data.sources import OpenSource
from plinth.locations import absolute
from plinth.storage import Storage
from plinth.storage.lock import RunLock
from poma3d.llm.conversations import shape_of
from poma3d.seen.config import NONE


def run(arguments: argparse.Namespace) -> int:
    """Answer everything and say where the answers are; returns the exit code."""
    return run_job(asked(GenerateJob, arguments))


def run_job(job: GenerateJob) -> int:
    """The same for a job that was read before.

    Raises:
        ConfigError: a value that cannot be, no run of a language model, or other answers at the output.
        CheckpointError: it has no checkpoint.
        DataError: questions, features or scenes that cannot be used.
    """
    job.validate()
    job = absolute(job)
    output = Storage.from_uri(job.output, job.storage)
    output.check(write=True)
    with RunLock(output, job.lock):
        found = works(job, output)
        with ray_cluster(job.ray, job.workers):
            pool = Pool(job.workers, job.cpus_per_worker, job.gpus_per_worker)
            for work, source in found:
                began = time.monotonic()
                label = f"answers to {work.kind}"
                make_shards(work, source.manifest.shards, answer_shard, load, pool, COMMITS, label)
                count = _collect(work, source)
                took = time.monotonic() - began
                print(f"{output.uri}/{work.kind}.jsonl: {count} answers, {took:.0f} s")
    return 0


def works(job: GenerateJob, output: Storage) -> list[tuple[GenerateWork, OpenSource]]:
    """The questions of each kind as a data set at the output, and what is done with it."""
    trained = read_job(job.run, job.storage)
    trained.storage = job.storage
    validate_seen(trained, job.asked, KEY)
    run = Storage.from_uri(job.run, job.storage)
    state = store.read_state(run.child(TRAINING).child("checkpoints"), job.step)
    scenes = scenes_of(trained, job.asked, KEY)
    setup, chat = set_up(trained, job.asked, scenes, KEY), chat_of(trained, run)
    numbers = None if trained.scene.tokens == NONE else setup.numbers.numbers
    recipe = {
        "run": run.uri,
        "step": state["step"],
        "config": state["notes"]["config"],
        "metrics": state["metrics"],
        "encoder": None if setup.encoder is None else setup.encoder["digest"],
        "max_tokens": job.max_tokens,
    }
    read = read_all(trained, job.asked, scenes, KEY)
    kinds = [each.kind for each in job.asked.conversations]
    claim(output, record_of(recipe, dict(zip(kinds, read, strict=True))))
    found = []
    for i, said in enumerate(read):
        kind = kinds[i]
        where = f"{KEY}.conversations[{i}]"
        tokenised = rows.tokenise(kind, 1.0, said, numbers, chat, where, with_answers=False)
        tokenised.say(where)
        shape = shape_of(tokenised.rows)
        check_length(trained, setup, shape)
        source = rows.write(
            output.child("questions"), tokenised, shape, numbers, _of_rows(recipe), setup.encoder, job.shards,
            job.questions_per_task,
        )  # fmt: skip
        found.append((GenerateWork(job, kind, state["step"], source.storage, output, digest(recipe)), source))
    return found


def _of_rows(recipe: dict[str, Any]) -> dict[str, Any]:
    """What decides the questions in tokens, beside their content."""
    return {key: recipe[key] for key in ("run", "encoder")}


def _collect(work: GenerateWork, source: OpenSource) -> int:
    """The file of a kind's answers, in the order of the questions."""
    keys = [commit_key(work.name(entry)) for entry in source.manifest.shards]
    lines = [line for content in read_many(work.output, keys) for line in json.loads(content)["answers"]]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    work.output.write(f"{work.kind}.jsonl", text.encode())
    return len(lines)
