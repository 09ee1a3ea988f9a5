"""Answers of `poma generate` beside transformers' `generate` on the same batches.

    python -m benchmarks.llm generation RUN [--folder demo] [--questions 256] [--rounds 5]

Asked are questions about the demo's held-out rooms, of a run of `jobs/configs/llm_rooms.yaml`.

    platform    what a worker of `poma generate` does to a shard of questions: read, decode, lay out, read and
                encode the scenes, generate, make texts, write the commit
    model       prompts that are laid out in memory: the scenes encoded, `generate`
    embeds      `generate` alone, from `inputs_embeds` in memory

Rounds alternate; the ratio is the median of the rounds' ratios, by the clock and by the CPU time of the
process. One process, without Ray.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from jobs.features.batches import batches
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
from poma3d.sample import decode

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
        written = (arguments.folder / "data" / "held_out" / "questions.jsonl").read_text().splitlines()
        asked.write_text("\n".join(written[: arguments.questions]) + "\n")
        conversations = ConversationsConfig(kind=rooms.KIND, annotations=[str(asked)])
        job = GenerateJob(
            run=arguments.run,
            asked=SeenConfig(
                conversations=[conversations], scenes=[str(arguments.folder / "data" / "held_out")]
            ),
            output=f"{folder}/answers",
            batch_size=arguments.batch,
            workers=0,
        )
        ((work, source),) = works(job, Storage.from_uri(job.output, job.storage))
        arms, tokens = arms_of(work, source)
        print("\n".join(_table(arms, tokens, arguments.questions, arguments.rounds)))


def arms_of(work: GenerateWork, source: OpenSource) -> tuple[dict[str, Callable[[], object]], int]:
    """What is measured, and how many tokens the answers have."""
    run, most = load(work), work.job.max_tokens
    laid = []
    for entry in source.manifest.shards:
        for table in batches(RowGroupReader(work.questions), entry, [*COLUMNS], work.job.batch_size):
            arrays = decode(table, COLUMNS)
            batch = {name: torch.from_numpy(np.array(values)) for name, values in arrays.items()}
            laid.append(run.stage.prepare_prompts(batch))
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
    clock: dict[str, list[float]] = {name: [] for name in arms}
    cpu: dict[str, list[float]] = {name: [] for name in arms}
    for run in arms.values():
        run()  # warm
    for number in range(rounds):
        for name in list(arms) if number % 2 == 0 else reversed(list(arms)):
            began, of_process = time.perf_counter(), time.process_time()
            arms[name]()
            clock[name].append(time.perf_counter() - began)
            cpu[name].append(time.process_time() - of_process)
    lines = ["| | answers/s | tokens/s | platform to it (rounds) | by CPU time |", "|---|---|---|---|---|"]
    for name in arms:
        took = statistics.median(clock[name])
        ratios = [b / a for a, b in zip(clock[PLATFORM], clock[name], strict=True)]
        of_cpu = statistics.median(b / a for a, b in zip(cpu[PLATFORM], cpu[name], strict=True))
        lines.append(
            f"| {name} | {questions / took:,.1f} | {tokens / took:,.1f} | {statistics.median(ratios):.3f} "
            f"({min(ratios):.3f} to {max(ratios):.3f}) | {of_cpu:.3f} |"
        )
    return lines
