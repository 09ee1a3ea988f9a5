"""What heads cost beside the bare models: how busy `poma features` keeps its encoder, and questions a second.

    python -m benchmarks.heads [--scenes 1000] [--questions 8192] [--rounds 5] [--folder DIR]

Features: procedural rooms through `poma features` in a process of its own (`workers=0`, no Ray, torch on one
thread) with an encoder of the demo's size. The share of the time in which the encoder is busy is what the
command prints: of the time from a shard's first byte to its commit, over all shards. Reading and decoding use
another core, where there is one. Beside it the most memory of that process, and the encoder alone on the same
scenes, decoded in memory before.

Evaluation: `rank` of `poma finetune` over questions in shards, beside the head alone on the same batches in
memory; rounds alternate, and the ratio is the median of theirs. The CPU ratio is of the time of the thread
that computes: what other work on the machine does not change. The head has the authors' sizes (32 views of
512, 706 answers); the text tower is small, as `poma questions --tower` writes it: a large one hides the rest.

What is there in the folder is used again.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jobs.common.datasets import Dataset
from jobs.demo.teacher_config import TeacherTrainConfig
from jobs.features import command as features
from jobs.features.config import FeaturesJob
from jobs.finetune.evaluate import rank, read_batches
from jobs.finetune.questions import Joined
from jobs.ingest import command as ingest
from jobs.ingest.config import IngestJob
from plinth import config
from plinth.data import manifest as manifests
from plinth.data.config import ShardOptions
from plinth.data.manifest import Manifest
from plinth.data.shards import RowGroupReader, write_shard
from plinth.data.sources import OpenSource
from plinth.storage import Storage
from poma3d import export
from poma3d.annotations.rows import Question
from poma3d.annotations.vocabulary import UnknownAnswers, Vocabulary
from poma3d.export import SceneEncoder
from poma3d.heads.answers import Answers
from poma3d.heads.config import HeadConfig, ProtocolConfig
from poma3d.heads.questions import QuestionRow, QuestionShape, SceneViews, encode
from poma3d.heads.stage import SITUATION, QuestionStage
from poma3d.heads.text import TextTower
from poma3d.network.vit import VisionTransformer, VitShape
from poma3d.sample import decode

VIEWS, EMBEDDING, TEXTS, TOKENS, CLASSES, WORDS = 32, 512, 1, 24, 706, 2000
"""Of the questions: the authors' head on SQA3D."""
TOWER_WIDTH, TOWER_LAYERS = 64, 1
QUESTIONS_PER_SCENE, SHARD_ROWS = 50, 1024


def main() -> None:
    """Measure both and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=1000)
    parser.add_argument("--views", type=int, default=8, help="of each room")
    parser.add_argument("--questions", type=int, default=8192)
    parser.add_argument("--batch", type=int, default=64, help="questions, as evaluate.batch_size")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="for data; a temporary one when left out")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder or Path(scratch)
        for line in [
            *features_lines(folder, arguments.scenes, arguments.views),
            *evaluation_lines(folder, arguments.questions, arguments.batch, arguments.rounds),
        ]:
            print(line, flush=True)


def features_lines(folder: Path, scenes: int, views: int) -> list[str]:
    """Busy share, memory and speed of `poma features`."""
    side = TeacherTrainConfig().image_size
    data = rooms(folder / f"rooms-{scenes}-{views}", scenes, views, side)
    encoder = write_encoder(folder / "encoder", side)
    output = folder / f"features-{time.time_ns()}"
    job = FeaturesJob(encoder=str(encoder), data=str(data), output=str(output), workers=0)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.apply(run_features, (config.to_yaml(job),))
    most, own = (kib / 1024 for kib in (found["after_kib"], found["after_kib"] - found["before_kib"]))
    alone_rate = found["alone_scenes"] / found["alone_s"]
    return [
        f"features of {found['scenes']} scenes of {views} views of {side} pixels:",
        f"  encoder busy          {100 * found['busy']:.1f} %",
        f"  most memory           {most:.0f} MiB, {own:.0f} MiB of it by the job",
        f"  whole job             {found['wall_s']:.1f} s",
        f"  scenes a second       {found['scenes'] / found['wall_s']:.1f}",
        f"  bare encoder          {alone_rate:.1f} scenes a second, decoded in memory",
    ]


def run_features(text: str) -> dict[str, Any]:
    """`poma features` in this process, and its encoder alone on the first shards."""
    torch.set_num_threads(1)
    job = config.build(FeaturesJob, [("job", config.parse(text, "job"))])
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    _, manifest, busy = features.features(job)
    stats = manifest.attributes["statistics"]
    after_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall_s = time.perf_counter() - began
    alone_scenes, alone_s = alone(job)
    return {
        "busy": busy, "wall_s": wall_s, "before_kib": before_kib, "after_kib": after_kib,
        "alone_scenes": alone_scenes, "alone_s": alone_s, **stats,
    }  # fmt: skip


def alone(job: FeaturesJob, shards: int = 4) -> tuple[int, float]:
    """The encoder on the scenes of some shards, in memory: how many, and the seconds."""
    encoder = export.load(job.encoder)
    storage = Storage.from_uri(job.data)
    reader, seconds, scenes = RowGroupReader(storage), 0.0, 0
    manifest = manifests.load(storage)
    geometry = Dataset(storage, manifest).shape.geometry
    for entry in manifest.shards[:shards]:
        arrays = decode(reader.read_shard(entry, list(geometry)), geometry)
        count = len(arrays["depth"])
        since = time.perf_counter()
        for start in range(0, count, job.batch_size):
            part = (np.array(arrays[name][start : start + job.batch_size]) for name in geometry)
            encoder.from_depth(*part)
        seconds += time.perf_counter() - since
        scenes += count
    return scenes, seconds


def rooms(folder: Path, scenes: int, views: int, side: int) -> Path:
    """Procedural rooms, once."""
    if not (folder / manifests.MANIFEST_KEY).exists():
        settings = {
            "output": str(folder),
            "reader": {"kind": "rooms", "rooms": {"rooms": scenes, "views": views, "image_size": side}},
            "shape": {"views": views, "height": side, "width": side},
            "views": {"candidate_step": 1},
            "workers": 0,
        }
        ingest.run_job(config.build(IngestJob, [("benchmark", settings)]))
    return folder


def write_encoder(folder: Path, side: int) -> Path:
    """An untrained encoder of the demo's size, exported."""
    size = TeacherTrainConfig()
    shape = VitShape(
        width=size.image_width, layers=size.image_layers, heads=size.image_heads,
        mlp_width=4 * size.image_width, patch=size.patch_size, grid=(side // size.patch_size,) * 2,
        joint=size.embedding, channels=3, pooling="class", activation="quick_gelu", norm_eps=1e-5,
    )  # fmt: skip
    torch.manual_seed(0)
    vit = VisionTransformer(shape)
    for p in vit.parameters():
        torch.nn.init.normal_(p, std=0.02)
    export.save(SceneEncoder(vit), folder)
    return folder


def evaluation_lines(folder: Path, questions: int, batch: int, rounds: int) -> list[str]:
    """Questions a second through `rank`, and of the bare head on batches in memory."""
    shape = QuestionShape(VIEWS, EMBEDDING, TEXTS, TOKENS, 1)
    answers = Answers(Vocabulary(tuple(f"answer {i}" for i in range(CLASSES))), UnknownAnswers.wrong)
    split = write_questions(folder / f"questions-{questions}", questions, shape)
    head = QuestionStage(HeadConfig(), ProtocolConfig(), small_tower(), shape, CLASSES, seed=0).eval()
    in_memory = batches_of(split, head, batch)

    @torch.no_grad()
    def bare() -> None:
        for prepared in in_memory:
            head.answer(prepared, prepared[SITUATION])

    rank(head, split, answers, batch, 10)  # what a first pass imports and allocates is in no round
    times = [
        (*_seconds(lambda: rank(head, split, answers, batch, 10)), *_seconds(bare)) for _ in range(rounds)
    ]
    middle, alone_s = (statistics.median(each[column] for each in times) for column in (0, 2))
    ratios = sorted(bare_s / whole_s for whole_s, _, bare_s, _ in times)
    ratio = statistics.median(ratios)
    cpu = statistics.median(bare_s / whole_s for _, whole_s, _, bare_s in times)
    return [
        f"evaluation of {questions} questions, {VIEWS} views of {EMBEDDING}, {CLASSES} answers:",
        f"  questions a second    {questions / middle:.0f}",
        f"  bare head             {questions / alone_s:.0f}, on batches in memory",
        f"  ratio                 {ratio:.3f} (rounds {ratios[0]:.3f} to {ratios[-1]:.3f})",
        f"  CPU ratio             {cpu:.3f}",
    ]


def _seconds(run: Callable[[], object]) -> tuple[float, float]:
    """Of a call: of the clock, and of this thread's CPU."""
    since, cpu_since = time.perf_counter(), time.thread_time()
    run()
    return time.perf_counter() - since, time.thread_time() - cpu_since


def small_tower() -> TextTower:
    """A text tower of random weights, of the size that `poma questions --tower` writes."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    sizes = BertConfig(
        vocab_size=WORDS, hidden_size=TOWER_WIDTH, num_hidden_layers=TOWER_LAYERS, num_attention_heads=4,
        intermediate_size=4 * TOWER_WIDTH, max_position_embeddings=TOKENS,
    )  # fmt: skip
    return TextTower(BertModel(sizes), train=False, dropout=False)


def write_questions(folder: Path, questions: int, shape: QuestionShape) -> Joined:
    """Random questions about random scenes as `poma finetune` stores them, once."""
    storage = Storage.from_uri(folder)
    draw = np.random.default_rng(0)
    rows = [
        QuestionRow(
            f"scene{number // QUESTIONS_PER_SCENE:05d}",
            str(number),
            (tuple(draw.integers(4, WORDS, draw.integers(8, TOKENS)).tolist()),),
            (int(draw.integers(CLASSES)),),
        )
        for number in range(questions)
    ]
    if not storage.exists(manifests.MANIFEST_KEY):
        options, entries = ShardOptions(row_group_rows=16), []
        for start in range(0, questions, SHARD_ROWS):
            part = rows[start : start + SHARD_ROWS]
            views = {
                name: SceneViews(
                    draw.standard_normal((VIEWS, EMBEDDING)).astype(np.float16), np.ones(VIEWS, np.uint8)
                )
                for name in {row.scene_id for row in part}
            }
            table = encode(part, views, shape)
            entries.append(write_shard(storage, f"{start // SHARD_ROWS:06d}", table, options))
        manifests.commit(storage, Manifest(entries, {"schema_version": 1, "shape": shape.to_dict()}))
    asked = {row.sample_id: Question(row.scene_id, row.question_id, "what?", ("answer 0",)) for row in rows}
    return Joined(OpenSource(storage, manifests.load(storage)), asked, {})


def batches_of(split: Joined, head: QuestionStage, size: int) -> list[dict[str, Any]]:
    """All batches of a split, prepared, in memory."""
    return [head.prepare(batch) for _, batch in read_batches(split, size, head.columns())]


if __name__ == "__main__":
    main()
