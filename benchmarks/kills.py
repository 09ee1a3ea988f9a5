"""What kills cost: a pretraining run of the demo that is killed five times, and its ledger.

    python -m benchmarks.kills [--kills 5] [--stop] [--every 50] [--folder bench-kills] [key=value ...]

Workers of the real job (Ray Train, DeepSpeed, streamed shards, asynchronous checkpoints) get `kill -9` in
the middle of a step, or SIGSTOP with `--stop`: `pretrain.fit.silent_after_s` later they count as lost.
Printed are the steps that were done again, the time from each kill to the next step that counts, the share
of the time that training waited for checkpoints, and the run's ledger.
"""

from __future__ import annotations

import argparse
import re
import statistics
from dataclasses import replace
from pathlib import Path

from jobs.common.cluster import ray_cluster
from jobs.common.run_layout import STAGES, run_storage
from jobs.demo import command as demo
from jobs.demo.config import DemoJob
from jobs.display.ledger import ledger_lines
from jobs.jobfile import load
from jobs.pretrain.check import check
from jobs.pretrain.config import PretrainJob
from jobs.pretrain.launch import launch
from jobs.pretrain.resolve import resolve
from jobs.prove_resume.faults import Action, Fault, with_faults
from plinth.observe.ledger import summarise
from plinth.observe.step_lines import read_lines
from plinth.storage import Storage
from plinth.units import counted

STAGE = "warmup"
FIRST_KILL, BETWEEN = 70, 11
"""Steps after which a worker that has just (re)started is killed; each later kill comes so much later."""


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--stop", action="store_true", help="stop workers for ever instead of killing them")
    parser.add_argument("--every", type=int, default=50, help="steps between checkpoints")
    parser.add_argument("--job", type=Path, default=Path("jobs/configs/demo.yaml"))
    parser.add_argument("--folder", default="bench-kills", help="where data and run go")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    a = parser.parse_args()
    job = load(DemoJob, a.job, [f"folder={a.folder}", "pretrain.name=kills", *a.overrides])
    Path(a.folder).mkdir(parents=True, exist_ok=True)
    run = replace(
        job.pretrain,
        checkpoint=replace(job.pretrain.checkpoint, every_steps=a.every),
        ledger=replace(job.pretrain.ledger, beat_every_s=1.0),
        fit=replace(job.pretrain.fit, max_failures=a.kills),
    )
    action = Action.stop_rank if a.stop else Action.kill_rank
    kills = [
        Fault(f"kill-{i}", action, STAGE, FIRST_KILL + BETWEEN * i, rank=i % run.fit.workers.max)
        for i in range(a.kills)
    ]
    with ray_cluster(run.ray, run.fit.workers.max):
        demo.make_data(job, demo.Timings(Path(a.folder) / demo.RECORD))
        launch(run, check(run, with_faults(resolve(run), kills, run_storage(run))))
    show(run)


def show(run: PretrainJob) -> None:
    """The figures, from the run's folder alone."""
    storage = run_storage(run)
    book = summarise(storage)
    times = sorted(killed_at(storage))
    steps = sorted(line["time"] for stage in STAGES for line in read_lines(storage.child(stage)))
    lines = [line for stage in STAGES for line in read_lines(storage.child(stage))]
    waits = [min(t for t in steps if t > killed) - killed for killed in times]
    stalls = [line["checkpoint_s"] for line in lines if line["checkpoint_s"] > 0]
    share = book.seconds["checkpoint_stall"] / book.wall_s
    redone = book.steps_redone
    print("\n".join(ledger_lines(book)))
    print(f"kills: {len(times)}; steps redone: {redone}, {redone / len(times):.1f} a kill")
    print(f"kill to next step: median {statistics.median(waits):.1f} s, longest {max(waits):.1f} s")
    print(f"waiting for checkpoints: {share:.3%} of the wall time, median {statistics.median(stalls):.3f} s")
    for size, seconds in restores(storage):
        print(f"restore of a checkpoint written by {counted(int(size), 'worker')}: {seconds} s")


def killed_at(storage: Storage) -> list[float]:
    """When the kills happened (`time.time()`)."""
    return [float(storage.read(key).decode().rsplit(" ", 1)[1]) for key, _ in storage.list("drills")]


def restores(storage: Storage) -> list[tuple[str, str]]:
    """(workers that wrote it, seconds to read it) of each resume, from the logs."""
    logs = [storage.read(key).decode() for key, _ in storage.list("logs") if key.endswith(".log")]
    return [found for text in logs for found in re.findall(r"written by (\d+) workers?, in ([\d.]+) s", text)]


if __name__ == "__main__":
    main()
