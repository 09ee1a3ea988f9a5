"""Answers of `poma generate` beside transformers' `generate` on the same batches.

    python -m benchmarks.llm generation RUN [--folder demo] [--questions 256] [--rounds 5]

Asked are questions about the demo's held-out rooms, of a run of `jobs/configs/llm_rooms.yaml`.

    platform    what a worker of `poma generate` does to a shard of questions: read, decode, lay out, read and
                encode the scenes, generate, make texts, write the commit
    model       prompts that are laid out in memory: the scenes encoded, `generate`
    embeds      `generate` alone, from `inputs_embeds` in memory

Rounds alternate, as `benchmarks.llm.rounds` says. One process, without Ray.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from benchmarks.llm.rounds import alternated, ratio_cells
from jobs.features.batches import batches
from jobs.finetune.llm.answers import read_batch
from jobs.finetune.llm.config import ConversationsConfig, SeenConfig
from jobs.generate.command import works
from jobs.generate.config import GenerateJob
from jobs.generate.tasks import GenerateWork, answer_shard, load
from plinth.data.shards import RowGroupReader
from plinth.data.sources import OpenSource
from plinth.storage import Storage
from poma3d.annotations import rooms
from poma3d.llm.conversations import COLUMNS
from poma3d.llm.generate import Asked, ask, generate

PLATFORM, MODEL, EMBEDS = "platform", "model", "embeds"


def main(words: Sequence[str]) -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(prog="benchmarks.llm generation", description=__doc__.splitlines()[0])
    parser.add_argument("run", help="folder of a run of a language model")
    parser.add_argument("--folder", type=Path, default=Path("demo"), help="of `poma demo`")
    parser.add_argument("--questions", type=int, default=256)
    parser.add_argument("--batch", type=int, default=32, help="questions that are answered at once")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    arguments = parser.parse_args(words)
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        asked = Path(folder) / "questions.jsonl"
        held_out = arguments.folder / "data" / "held_out"
        lines = (held_out / "questions.jsonl").read_text().splitlines(keepends=True)[: arguments.questions]
        asked.write_text("".join(lines))
        conversations = ConversationsConfig(kind=rooms.KIND, annotations=[str(asked)])
        job = GenerateJob(
            run=arguments.run,
            asked=SeenConfig(conversations=[conversations], scenes=[str(held_out)]),
            output=f"{folder}/answers",
            batch_size=arguments.batch,
            workers=0,
        )
        ((work, source),) = works(job, Storage.from_uri(job.output, job.storage))
        arms, tokens = arms_of(work, source)
        print("\n".join(_table(arms, tokens, len(lines), arguments.rounds)))


def arms_of(work: GenerateWork, source: OpenSource) -> tuple[dict[str, Callable[[], object]], int]:
    """What is measured, and how many tokens the answers have."""
    run, most = load(work), work.job.max_tokens
    laid = []
    for entry in source.manifest.shards:
        for table in batches(RowGroupReader(work.questions), entry, [*COLUMNS], work.job.batch_size):
            laid.append(run.stage.prepare_prompts(read_batch(table)))
    embedded = [ask(run.stage, batch) for batch in laid]

    def answer(asked: Asked) -> list[list[int]]:
        return generate(run.stage, asked, run.chat.stop_ids, most)

    arms: dict[str, Callable[[], object]] = {
        PLATFORM: lambda: [answer_shard(work, entry) for entry in source.manifest.shards],
        MODEL: lambda: [answer(ask(run.stage, batch)) for batch in laid],
        EMBEDS: lambda: [answer(asked) for asked in embedded],
    }
    stop = set(run.chat.stop_ids)
    tokens = sum(1 for asked in embedded for ids in answer(asked) for token in ids if token not in stop)
    return arms, tokens


def _table(arms: dict[str, Callable[[], object]], tokens: int, questions: int, rounds: int) -> list[str]:
    found = alternated(arms, rounds)
    lines = ["| | answers/s | tokens/s | platform to it (rounds) | by CPU time |", "|---|---|---|---|---|"]
    for name, times in found.items():
        speeds = f"{questions / times.median_s:,.1f} | {tokens / times.median_s:,.1f}"
        lines.append(f"| {name} | {speeds} | {ratio_cells(found[PLATFORM], times)} |")
    return lines
