"""What an evaluation beside the training costs a step: the demo's main stage on one worker and one core, with
and without `evaluate_beside` on the other core, in turns.

    python -m benchmarks.step.beside [--rounds 3] [--steps 120] [--every 40] [--folder FOLDER]

Every checkpoint is evaluated, far more often than anyone would; each evaluation loads encoder and teacher
anew. The ratio is that of samples/s in the same round. What an evaluation costs does not depend on how many
steps come before the next one, so that the last line can say it for the interval that jobs have by default.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from benchmarks.step.pretrain import Run, prepare
from plinth.checkpoint.config import CheckpointConfig

SKIPPED = 40
"""Steps before those that count, while reading begins."""
WITHOUT, WITH = "without", "with evaluations"


def main() -> None:
    """Train in turns, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=120, help="that count, of a run")
    parser.add_argument("--every", type=int, default=40, help="steps between checkpoints, each evaluated")
    parser.add_argument("--folder", type=Path, default=Path("bench-step"), help="data and runs")
    a = parser.parse_args()
    prepare(a.folder)
    plain = [
        "fit.workers=1", "fit.cpus_per_worker=1", f"checkpoint.every_steps={a.every}",
        "main.data.reader=threads",
    ]  # fmt: skip
    beside = [f"evaluate_beside.data={a.folder.resolve() / 'data' / 'held_out'}"]
    ratios = []
    for number in range(a.rounds):
        rates = {}
        for name, overrides in ((WITHOUT, plain), (WITH, [*plain, *beside])):
            run = Run(a.folder, f"beside-{number}", {"main": SKIPPED + a.steps + 1}, overrides)
            run.end()
            rates[name] = run.measured("main", run.lines("main")[SKIPPED:]).samples_per_s
        ratios.append(rates[WITH] / rates[WITHOUT])
        print(", ".join(f"{name} {rate:.1f} samples/s" for name, rate in rates.items()), flush=True)
    ratio, usual = statistics.median(ratios), CheckpointConfig().every_steps
    print(f"ratio {ratio:.3f}, of {min(ratios):.3f} to {max(ratios):.3f}")
    print(f"with checkpoints every {usual} steps: {(1 - ratio) * a.every / usual:.2%} of a step")


if __name__ == "__main__":
    main()
