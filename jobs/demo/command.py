"""`poma demo`: rooms -> teacher -> shards -> both stages -> evaluation -> report, on this machine.

Each part is the command that a user would run. What is finished is not done again, so an interrupted demo
continues where it stopped.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from jobs.common.cluster import ray_cluster
from jobs.common.datasets import Dataset, open_dataset
from jobs.common.run_layout import STAGES, run_storage
from jobs.demo import head
from jobs.demo.config import DemoJob
from jobs.demo.examples import examples
from jobs.demo.report import Picture, Report, write_report
from jobs.demo.room import room_page
from jobs.demo.teacher import train_teacher
from jobs.display.figures import Curve
from jobs.embed import command as embed
from jobs.embed.config import EmbedJob
from jobs.evaluate import command as evaluate
from jobs.evaluate import measure
from jobs.evaluate.tables import plain_table, summary_table, table_of, tables_of
from jobs.finetune.evaluate import Results
from jobs.ingest import command as ingest
from jobs.jobfile import asked
from jobs.pretrain.check import check
from jobs.pretrain.launch import launch
from jobs.pretrain.resolve import resolve
from jobs.pretrain.told import target_way
from jobs.runs.curves import read_steps, stage_curves
from jobs.shards.preview import PreviewConfig, colours, point_maps, preview
from jobs.view.page import write_page
from plinth import config
from plinth.errors import STOPPED_EXIT_CODE, ConfigError
from plinth.observe.ledger import summarise
from poma3d.pictures import colour_points
from poma3d.sample import Sample

RECORD = "demo.json"
ROOM = "room.html"
HOPED_BEST = 5
HOPED_FOR = f"R@3-{HOPED_BEST}"
ACTIVATE = Path(sys.executable).parent / "activate"
SHOWN = ("R@3-1", HOPED_FOR, "R@3-10", measure.PROBE)
"""Columns of the terminal's one table; the report has all."""


@dataclass
class Timings:
    """Seconds of each part, kept with the demo so that an interrupted one reports them all."""

    path: Path
    parts: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Print the name of a part and time it."""
        print(f"== {name}", flush=True)
        start = time.monotonic()
        yield
        self.parts[name] = self.parts.get(name, 0.0) + time.monotonic() - start
        self.path.write_text(json.dumps(self.parts, indent=1) + "\n")


def run(arguments: argparse.Namespace) -> int:
    """Run the demo; returns the exit code."""
    return run_job(asked(DemoJob, arguments))


def run_job(job: DemoJob) -> int:
    """Run the demo of a loaded job; returns the exit code."""
    folder = Path(job.folder)
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / RECORD
    timings = Timings(record, json.loads(record.read_text()) if record.exists() else {})
    with ray_cluster(job.pretrain.ray, job.pretrain.fit.workers.max, saves_on_sigterm=True):
        make_data(job, timings)
        held_out = open_dataset(job.held_out.output, job.held_out.storage)
        preview(held_out.samples(4), folder / "rooms.png", PreviewConfig())
        with timings.part("pretrain: warm-up and main stage on Ray Train workers"):
            checked = check(job.pretrain, resolve(job.pretrain))
            end = launch(job.pretrain, checked)
    if end.is_stopped:
        return _stopped()
    for line in target_way(job.pretrain, checked.stages):
        print(line)
    with timings.part("evaluate: rooms that nothing has trained on"):
        outcome = evaluate.evaluate(job.evaluate)
    answered = None
    if job.head is not None:
        with timings.part("questions: a head that answers them from the encoder's features"):
            answered = head.train_head(job, job.head)
            if answered is None:
                return _stopped()
    report = _report(job, outcome, answered, timings)
    if report.room:
        write_page(report.room, folder / ROOM)
    path = write_report(report, folder / "report.html")
    print("\n" + plain_table(table_of(outcome.results, SHOWN)))
    print(f"\n{report.status}")
    if job.head is not None and answered is not None:
        print(head.said(job.head, answered, outcome.samples[0].scene_id))
    print(f"all tables: {path}")
    print(f"curves: tensorboard --logdir {job.pretrain.output}/{job.pretrain.name}")
    if shutil.which("poma") is None and ACTIVATE.is_file():
        print(f"to have `poma` on the path: source {ACTIVATE}")
    return 0


def _stopped() -> int:
    print("\nstopped as asked; the same command resumes from there")
    return STOPPED_EXIT_CODE


def make_data(job: DemoJob, timings: Timings) -> None:
    """Make the rooms, the teacher and the embeddings that are missing."""
    with timings.part("rooms: ray-cast, choose views, write shards"):
        rooms, _, _ = ingest.ingest([job.rooms, job.images, job.held_out])
    with timings.part("teacher: a tiny CLIP on the rooms' colour images and captions"):
        train_tiny_teacher(job, rooms)
    with timings.part("embed: the teacher's features into the shards"):
        embed_all(job)


def train_tiny_teacher(job: DemoJob, rooms: Dataset) -> None:
    """The demo's stand-in for hub weights, in the folder that the jobs name as their teacher."""
    try:
        train_teacher(rooms.samples(), Path(job.pretrain.teacher.source), job.teacher)
    except ValueError as error:
        raise ConfigError(f"the demo's teacher: {error}") from None


def embed_all(job: DemoJob) -> None:
    """The teacher's embeddings into all three data sets."""
    embed.embed(
        [
            EmbedJob(
                data=data.output,
                teacher=job.pretrain.teacher,
                image_tokens=job.image_tokens,
                shards=data.shards,
                workers=data.workers,
            )
            for data in (job.rooms, job.images, job.held_out)
        ]
    )


def _report(job: DemoJob, outcome: evaluate.Outcome, answered: Results | None, timings: Timings) -> Report:
    numbers, chance = outcome.results.numbers[measure.MODEL], outcome.results.chance
    found, lot = numbers[HOPED_FOR], chance[HOPED_FOR]
    good = found.value >= 2 * lot and found.low > lot
    status = (
        f"{HOPED_FOR} {found.value:.3f} [{found.low:.3f}, {found.high:.3f}] against {lot:.3f} by chance: "
        f"{found.value / lot:.1f} times chance on {len(outcome.samples)} held-out rooms"
    )
    ledger = summarise(run_storage(job.pretrain))
    thumbnails = [colours(sample)[0] for sample in outcome.samples]
    room, room_still = room_page(outcome.samples, outcome.features, outcome.teacher)
    return Report(
        title="POMA-3D demo: two stages on procedural rooms",
        status=status,
        good=good,
        summary=(
            "A point-map encoder that never sees colour learned to place rooms in the joint space of a "
            "frozen image-text teacher: first from single views, then from whole rooms."
        ),
        facts={
            **{name.split(":")[0]: f"{seconds:.0f} s" for name, seconds in timings.parts.items()},
            "training processes": f"{job.pretrain.fit.workers.max} at most",
            "restarts": str(ledger.restarts),
        },
        ledger=ledger,
        tables=[summary_table(outcome.results, HOPED_BEST)],
        more_tables=[*tables_of(outcome.results), *([head.table(answered)] if answered is not None else [])],
        curves=_curves(job),
        pictures=_pictures(outcome.samples),
        room=room,
        room_still=room_still,
        room_file=ROOM,
        examples=examples(job.evaluate, outcome.samples, outcome.features, outcome.teacher, thumbnails),
        notes=_notes(job),
        config=config.to_yaml(job),
    )


def _notes(job: DemoJob) -> list[str]:
    notes = [
        "The rooms are procedural and the teacher is a tiny CLIP trained on them: stand-ins for licensed "
        "scans and hub weights, behind the code paths that the real ones take.",
        "Colour is the teacher's cue; the student never sees it.",
    ]
    for name, stage in (("warm-up", job.pretrain.warmup), ("main stage", job.pretrain.main)):
        if stage is not None and stage.loss.dense:
            notes.append(f"Not in the paper: dense distillation of weight {stage.loss.dense} in the {name}.")
    if job.pretrain.model.encoder.input_gain != 1:
        notes.append(f"Not in the paper: input gain {job.pretrain.model.encoder.input_gain}.")
    if job.pretrain.model.augment.rotate_z_degrees:
        notes.append("Not in the paper: scenes are turned about the vertical by a random angle.")
    return notes


def _curves(job: DemoJob) -> dict[str, list[Curve]]:
    storage = run_storage(job.pretrain)
    curves = {stage: stage_curves(stage, read_steps(storage.child(stage))) for stage in STAGES}
    return {stage: found for stage, found in curves.items() if found}


def _pictures(samples: list[Sample]) -> list[Picture]:
    out = []
    for sample in samples[:2]:
        maps = colour_points(torch.from_numpy(point_maps(sample)))
        coloured, seen = (np.concatenate(list(views), axis=1) for views in (maps, colours(sample)))
        out.append(Picture(coloured, f"{sample.scene_id}: point maps coloured by x, y, z"))
        out.append(Picture(seen, f"{sample.scene_id}: what the teacher saw"))
    return out
