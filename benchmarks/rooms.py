"""What the two stages learn on procedural rooms: seeds, ablations and a control, as one table.

    python -m benchmarks.rooms [--job jobs/configs/rooms.yaml] [--seeds 0 1 2] [--folder bench-rooms]

Each row is a run of the real job (Ray Train, DeepSpeed, streamed shards) evaluated on rooms that nothing has
trained on:

    warm-up            stage 1 alone
    + main, Chamfer    stage 2 from that warm-up, as in the paper
    + main, positional stage 2 with the smooth-L1 of plain I-JEPA
    shuffled           stage 1 on wrong pairs: every sample has another sample's embeddings

`jobs/configs/rooms.yaml` takes about an hour a run on two cores, `jobs/configs/demo.yaml` minutes; the table
says which job it was made from. What is finished is not done again.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from jobs.common.cluster import ray_cluster
from jobs.common.datasets import Dataset, open_dataset
from jobs.demo import command as demo
from jobs.demo.config import DemoJob
from jobs.evaluate import command as evaluate
from jobs.evaluate import measure as evaluation
from jobs.jobfile import load
from jobs.pretrain.check import check
from jobs.pretrain.config import PretrainJob
from jobs.pretrain.launch import launch
from jobs.pretrain.resolve import resolve
from plinth.data import manifest as manifests
from plinth.data.manifest import Manifest
from plinth.data.shards import write_shard
from plinth.storage import Storage
from poma3d.evaluate.bootstrap import Estimate
from poma3d.sample import encode

ROOMS_JOB = Path("jobs/configs/rooms.yaml")
COLUMNS = ("R@1-1", "R@1-5", "R@3-5", "scene R@1-1", "scene R@1-5", "probe AP")
PAIRED = ("image_embedding", "caption_embedding", "scene_caption_embedding", "image_tokens")
CAPTIONS = ("view_captions", "scene_captions")


def main() -> None:
    """Run what is missing of the grid and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--job", type=Path, default=ROOMS_JOB, help="a job of the kind of the demo's")
    parser.add_argument("--folder", default="bench-rooms", help="where data and runs go")
    arguments = parser.parse_args()
    job = load(DemoJob, arguments.job, [f"folder={arguments.folder}"])
    results = Path(arguments.folder) / "results.json"
    rows: dict[str, dict[str, dict[str, float]]] = json.loads(results.read_text()) if results.exists() else {}
    with ray_cluster(job.pretrain.ray, job.pretrain.fit.workers.max):
        prepare(job)
        for seed in arguments.seeds:
            for label, run in runs(job, seed):
                if f"{label}/{seed}" not in rows:
                    launch(run, check(run, resolve(run)))
                    rows |= measure(job, run, f"{label}/{seed}")
                    results.write_text(json.dumps(rows, indent=1) + "\n")
                    print(table(rows, arguments.job.stem), flush=True)


def prepare(job: DemoJob) -> None:
    """Rooms, teacher, embeddings, and the shuffled control."""
    demo.make_data(job, demo.Timings(Path(job.folder) / "data.json"))
    options = job.pretrain.storage
    shuffle(open_dataset(job.images.output, options), Storage.from_uri(shuffled(job)), job)


def shuffled(job: DemoJob) -> str:
    """Where the control's data is."""
    return f"{job.images.output}-shuffled"


def shuffle(source: Dataset, target: Storage, job: DemoJob) -> None:
    """A data set of the same geometry in which every sample has the teacher's view of another one."""
    if target.exists(manifests.MANIFEST_KEY):
        return
    samples = source.samples()
    order = np.random.default_rng(0).permutation(len(samples))
    wrong = [
        replace(sample, **{name: getattr(samples[other], name) for name in (*PAIRED, *CAPTIONS)})
        for sample, other in zip(samples, order, strict=True)
    ]
    entries, start = [], 0
    for index, shard in enumerate(source.manifest.shards):
        table = encode(wrong[start : start + shard.rows], source.shape)
        entries.append(write_shard(target, f"{index:06d}", table, job.images.shards))
        start += shard.rows
    manifests.commit(target, Manifest(entries, source.manifest.attributes))


def runs(job: DemoJob, seed: int) -> list[tuple[str, PretrainJob]]:
    """The rows of the table for one seed, in the order in which they depend on each other."""
    base = replace(job.pretrain, seed=seed)
    assert base.warmup is not None
    assert base.main is not None
    warmup, main_stage = base.warmup, base.main
    first = replace(base, name=f"warmup-seed{seed}", main=None)
    start = f"{base.output}/{first.name}/warmup"
    control = replace(
        warmup, data=replace(warmup.data, sources=[replace(warmup.data.sources[0], uri=shuffled(job))])
    )

    def after_warmup(name: str, distance: str) -> PretrainJob:
        loss = replace(main_stage.loss, jepa_distance=distance)
        stage = replace(main_stage, loss=loss)
        return replace(base, name=f"{name}-seed{seed}", start=start, warmup=None, main=stage)

    return [
        ("warm-up", first),
        ("+ main, Chamfer", after_warmup("chamfer", "chamfer")),
        ("+ main, positional", after_warmup("positional", "smooth_l1")),
        ("shuffled", replace(base, name=f"shuffled-seed{seed}", warmup=control, main=None)),
    ]


def measure(job: DemoJob, run: PretrainJob, label: str) -> dict[str, dict[str, dict[str, float]]]:
    """The numbers of one run, and those that all share: chance, untrained, teacher."""
    outcome = evaluate.evaluate(replace(job.evaluate, run=f"{run.output}/{run.name}"))
    numbers = outcome.results.numbers
    shared = {name: as_dicts(numbers[name]) for name in (evaluation.UNTRAINED, evaluation.TEACHER)}
    chance = {name: {"value": value} for name, value in outcome.results.chance.items()}
    return {"chance": chance, **shared, label: as_dicts(numbers[evaluation.MODEL])}


def as_dicts(numbers: dict[str, Estimate]) -> dict[str, dict[str, float]]:
    """For JSON."""
    return {name: estimate.to_dict() for name, estimate in numbers.items()}


def table(rows: dict[str, dict[str, dict[str, float]]], job: str) -> str:
    """Markdown: one line per kind of run, its seeds side by side."""
    kinds: dict[str, list[str]] = {}
    for name in rows:
        kinds.setdefault(name.split("/")[0], []).append(name)
    lines = [f"| {job} | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for kind, names in kinds.items():
        cells = [" / ".join(f"{rows[n][column]['value']:.3f}" for n in names) for column in COLUMNS]
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
