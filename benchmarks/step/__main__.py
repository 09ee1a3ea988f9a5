"""What the platform costs beside the model: the same optimizer step done in several ways, by two processes.

    python -m benchmarks.step                                   demo's stages: bare, DeepSpeed, our engine
    python -m benchmarks.step --demo --json step.json           and `poma pretrain`, on Ray, from shards, once
                                                                its start is SETTLED_S past
    python -m benchmarks.step --demo --workers 1                one process each: of two cores one is Ray's
    python -m benchmarks.step --cases vit-b --steps 1           ViT-B/16 at 224 px, LoRA, one micro-batch

The ways take turns in rounds; a ratio is the median over rounds of samples/s beside those of `bare` in the
same round (`benchmarks.step.arms` has the ways). `poma pretrain` is stopped again and again for bare's turn
(`benchmarks.step.turns`): with --demo, rounds are runs, and a turn of both counts as a round does elsewhere.
In a round all of them take steps of the same epochs: an epoch decides how large the masks are, and steps of
two epochs of the demo differ by a fifth. CPU-ms are of all of them (of all processes of `poma pretrain`) and
suffer less from other work on the machine. The parts of the engine's step are on rank 0, each without those
inside it; what a rank waits for the other is in `waiting in collectives`.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.step.arms import Case, serve
from benchmarks.step.pretrain import LAYERS, STAGES, Run, prepare
from benchmarks.step.turns import steps_needed, take_turns
from jobs.common.cluster import free_port
from poma3d.network.config import MaskConfig, PredictorConfig
from poma3d.network.vit import VitShape

DEMO_VIT = VitShape((4, 4), 16, 3, 96, LAYERS, 4, 384, "quick_gelu", 1e-5, "class", 128)
DEMO_PREDICTOR = PredictorConfig(layers=2, width=96, heads=4)
DEMO_MASKS = MaskConfig(min_context=4)
VIT_B = VitShape((14, 14), 16, 3, 768, 12, 12, 3072, "quick_gelu", 1e-5, "class", 512)
WARM_STEPS = 3
SETTLED_S = 8.0
"""Of each stage of `poma pretrain`, at the pace of bare, before it is measured: by then Ray's processes have
started, reading is under way and the run has its first page."""
BARE = "bare"
PRETRAIN = "poma pretrain"

CASES = {
    "warmup": Case(
        "demo's warm-up", "warmup", DEMO_VIT, views=1, captions=5, scene_captions=4, global_batch_size=64,
        predictor=DEMO_PREDICTOR, masks=DEMO_MASKS, lr=1.5e-3,
    ),
    "main": Case(
        "demo's main stage", "main", DEMO_VIT, views=4, captions=5, scene_captions=4, global_batch_size=32,
        predictor=DEMO_PREDICTOR, masks=DEMO_MASKS, lr=1e-3,
    ),
    "vit-b": Case(
        "ViT-B/16, 224 px, main stage, LoRA", "main", VIT_B, views=2, captions=5, scene_captions=4,
        global_batch_size=2, predictor=PredictorConfig(), masks=MaskConfig(), lr=1e-4,
        tuning="lora",
    ),
}  # fmt: skip


class Round(NamedTuple):
    """Of one way in one round."""

    samples_per_s: float
    cpu_ms: float
    """A step, all processes together."""


class Ranks:
    """The processes of one way; they wait while they are not asked."""

    def __init__(self, arm: str, case: Case) -> None:
        context = multiprocessing.get_context("spawn")
        port = free_port()
        self._case = case
        self._pipes: list[Any] = []
        self._processes: list[Any] = []
        for rank in range(case.workers):
            ours, theirs = context.Pipe()
            process = context.Process(target=serve, args=(arm, case, rank, port, theirs), daemon=True)
            process.start()
            self._pipes.append(ours)
            self._processes.append(process)
        for pipe in self._pipes:
            pipe.recv()
        self._ask("run", range(WARM_STEPS))

    def run(self, epochs: Sequence[int]) -> Round:
        """Train a step of each of these epochs."""
        answers = self._ask("run", epochs)
        wall_s = max(wall for wall, _, _ in answers)
        cpu_s = sum(cpu for _, cpu, _ in answers)
        steps = len(epochs)
        return Round(steps * self._case.global_batch_size / wall_s, 1000 * cpu_s / steps)

    def parts(self, epochs: Sequence[int]) -> dict[str, float]:
        """Milliseconds of a step of rank 0 by part; of the engine only."""
        found: dict[str, float] = self._ask("parts", epochs)[0]
        return found

    def end(self) -> None:
        """End the processes."""
        for pipe in self._pipes:
            pipe.send(("end",))
        for process in self._processes:
            process.join()

    def _ask(self, *message: Any) -> list[Any]:
        for pipe in self._pipes:
            pipe.send(message)
        return [pipe.recv() for pipe in self._pipes]


@contextmanager
def started(arms: Sequence[str], case: Case) -> Iterator[dict[str, Ranks]]:
    """The processes of some ways."""
    groups = {arm: Ranks(arm, case) for arm in arms}
    try:
        yield groups
    finally:
        for group in groups.values():
            group.end()


def main() -> None:
    """Compare, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", default="warmup,main", help=f"of {', '.join(CASES)}")
    parser.add_argument("--arms", default="bare,deepspeed,engine")
    parser.add_argument("--rounds", type=int, default=5, help="with --demo, runs of `poma pretrain`")
    parser.add_argument("--steps", type=int, default=20, help="of a round; with --demo, of a turn")
    parser.add_argument("--turns", type=int, default=4, help="of each stage of a run, with --demo")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--no-exact-sums", action="store_true")
    parser.add_argument("--workers", type=int, default=2, help="processes of each way that train")
    parser.add_argument("--demo", action="store_true", help="`poma pretrain` on the demo's stages, too")
    parser.add_argument("--reader", choices=["auto", "ray", "threads"], default="auto", help="of --demo")
    parser.add_argument("--folder", type=Path, default=Path("bench-step"), help="of --demo: data and runs")
    parser.add_argument("--json", type=Path, help="where --demo writes the ratios")
    a = parser.parse_args()
    for name in STAGES if a.demo else a.cases.split(","):
        if CASES[name].global_batch_size % a.workers:
            parser.error(
                f"--workers {a.workers} does not divide {name}'s batch of {CASES[name].global_batch_size}"
            )
    if a.demo:
        ratios = demo(a)
        if a.json:
            a.json.write_text(json.dumps({stage: {"ratio": r} for stage, r in ratios.items()}) + "\n")
        return
    for name in a.cases.split(","):
        case = asked(name, a)
        arms = a.arms.split(",")
        with started(arms, case) as groups:
            rounds = [
                {arm: group.run(range(first, first + a.steps)) for arm, group in groups.items()}
                for first in range(0, a.rounds * a.steps, a.steps)
            ]
            parts = groups["engine"].parts(range(a.steps)) if "engine" in groups else {}
        show(case, arms, rounds)
        for part, ms in sorted(parts.items(), key=lambda of: -of[1]):
            print(f"    {part:24} {ms:9.2f} ms")


def asked(name: str, a: argparse.Namespace) -> Case:
    """A case as the command line wants it."""
    return replace(CASES[name], precision=a.precision, exact_sums=not a.no_exact_sums, workers=a.workers)


def demo(a: argparse.Namespace) -> dict[str, float]:
    """`poma pretrain` beside bare torch; the ratio of each stage."""
    prepare(a.folder)
    cases = {name: asked(name, a) for name in STAGES}
    found: dict[str, list[dict[str, Round]]] = {name: [] for name in STAGES}
    overrides = [f"zero.precision={a.precision}", f"zero.exact_sums={not a.no_exact_sums}"]
    overrides += [f"fit.workers={a.workers}", *(f"{name}.data.reader={a.reader}" for name in STAGES)]
    overrides += [f"{name}.micro_batch_size={case.micro_batch_size}" for name, case in cases.items()]
    label = f"{a.precision}-{'plain' if a.no_exact_sums else 'exact'}-{a.reader}-{a.workers}"
    with started([BARE], cases["warmup"]) as warmup, started([BARE], cases["main"]) as main_stage:
        bare = {"warmup": warmup[BARE], "main": main_stage[BARE]}
        pace = {name: bare[name].run(range(a.steps)).samples_per_s for name in STAGES}
        skipped = {name: math.ceil(SETTLED_S * pace[name] / cases[name].global_batch_size) for name in STAGES}
        lengths = {name: steps_needed(before, a.turns, a.steps) for name, before in skipped.items()}
        for number in range(a.rounds):
            run = Run(a.folder, f"{label}-{number}", lengths, overrides)
            turns = take_turns(run, skipped, a.turns, a.steps, lambda name, epochs: bare[name].run(epochs))
            for name in STAGES:
                found[name] += [
                    {BARE: theirs, PRETRAIN: Round(ours.samples_per_s, ours.cpu_ms)}
                    for ours, theirs in turns[name]
                ]
    return {name: show(cases[name], [BARE, PRETRAIN], found[name], "turns") for name in STAGES}


def show(case: Case, arms: Sequence[str], rounds: Sequence[dict[str, Round]], unit: str = "rounds") -> float:
    """Print the table of a case; returns the last way's ratio to the first."""
    is_exact = case.exact_sums and case.precision == "fp32" and case.workers > 1
    sums = "exact sums" if is_exact else "plain sums"  # the only micro-batch of a step is added to nothing
    print(f"{case.name}: {case.precision}, {sums}, ZeRO {case.zero_stage}, {len(rounds)} {unit}")
    print(f"    {'':24} {'samples/s':>9} {'CPU-ms':>9} {'ratio':>6} {'middle half':>12} {'CPU ratio':>9}")
    ratio = 1.0
    for arm in arms:
        ratios = sorted(r[arm].samples_per_s / r[arms[0]].samples_per_s for r in rounds)
        ratio, quarter = statistics.median(ratios), len(ratios) // 4
        half = f"{ratios[quarter]:.2f} to {ratios[-1 - quarter]:.2f}"
        cpu = statistics.median(r[arms[0]].cpu_ms / r[arm].cpu_ms for r in rounds)
        rate, ms = (statistics.median(r[arm][i] for r in rounds) for i in (0, 1))
        print(f"    {arm:24} {rate:9.1f} {ms:9.1f} {ratio:6.2f} {half:>12} {cpu:9.2f}", flush=True)
    return ratio


if __name__ == "__main__":
    main()
