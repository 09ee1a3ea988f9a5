"""What the platform costs beside the model: `python -m benchmarks.step`."""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from benchmarks.step.arms import WORLD_SIZE, Case, serve
from jobs.common.cluster import free_port
from poma3d.network.config import MaskConfig, PredictorConfig
from poma3d.network.vit import VitShape

DEMO_VIT = VitShape((4, 4), 16, 3, 96, 4, 4, 384, "quick_gelu", 1e-5, "class", 128)
DEMO_PREDICTOR = PredictorConfig(layers=2, width=96, heads=4)
WARM_STEPS = 5

CASES = {
    "warmup": Case(
        "demo's warm-up",
        "warmup",
        DEMO_VIT,
        1,
        4,
        4,
        64,
        32,
        DEMO_PREDICTOR,
        MaskConfig(min_context=4),
        1.5e-3,
    ),
    "main": Case(
        "demo's main stage",
        "main",
        DEMO_VIT,
        4,
        4,
        4,
        32,
        16,
        DEMO_PREDICTOR,
        MaskConfig(min_context=4),
        1e-3,
    ),
}


class Ranks:
    """The processes of one way to train."""

    def __init__(self, arm: str, case: Case) -> None:
        context = multiprocessing.get_context("spawn")
        port = free_port()
        self.pipes, self.processes = [], []
        for rank in range(WORLD_SIZE):
            ours, theirs = context.Pipe()
            process = context.Process(target=serve, args=(arm, case, rank, port, theirs), daemon=True)
            process.start()
            self.pipes.append(ours)
            self.processes.append(process)
        for pipe in self.pipes:
            pipe.recv()

    def ask(self, *message: Any) -> list[Any]:
        for pipe in self.pipes:
            pipe.send(message)
        return [pipe.recv() for pipe in self.pipes]

    def end(self) -> None:
        for pipe in self.pipes:
            pipe.send(("end",))
        for process in self.processes:
            process.join()


def compare(case: Case, arms: Sequence[str], rounds: int, steps: int) -> dict[str, dict[str, float]]:
    groups = {arm: Ranks(arm, case) for arm in arms}
    for group in groups.values():
        group.ask("run", WARM_STEPS)
    found: dict[str, list[tuple[float, float]]] = {arm: [] for arm in arms}
    for _ in range(rounds):
        for arm, group in groups.items():
            answers = group.ask("run", steps)
            wall = max(a[0] for a in answers) / steps
            found[arm].append((wall, sum(a[1] for a in answers) / steps))
    results = {}
    for arm in arms:
        ratios = [b[0] / a[0] for a, b in zip(found[arm], found[arms[0]], strict=True)]
        wall = statistics.median(w for w, _ in found[arm])
        results[arm] = {
            "samples_per_s": case.global_batch_size / wall,
            "ms": 1000 * wall,
            "cpu_ms": 1000 * statistics.median(c for _, c in found[arm]),
            "ratio": statistics.median(ratios),
        }
    if "engine" in groups:
        results["parts"] = groups["engine"].ask("parts", steps)[0]
    for group in groups.values():
        group.end()
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", default="warmup,main")
    parser.add_argument("--arms", default="bare,deepspeed,engine")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--no-exact", action="store_true")
    a = parser.parse_args()
    for name in a.cases.split(","):
        case = replace(CASES[name], exact_sums=not a.no_exact)
        results = compare(case, a.arms.split(","), a.rounds, a.steps)
        print(f"== {case.name}")
        for arm, r in results.items():
            print(f"{arm:12}", "  ".join(f"{k} {v:.2f}" for k, v in r.items()), flush=True)


if __name__ == "__main__":
    main()
