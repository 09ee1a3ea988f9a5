"""The engine's own promises: nothing is applied when a number is not finite, the target copy is the fp32
average of the masters, and what cannot work is refused. Its results are in tests/parity."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from plinth.engine import process
from plinth.engine.engine import REPLAYS_CHECKED, Engine, EngineConfig
from plinth.errors import ConfigError, NonFiniteError
from tests.helpers.ranks import RankError, run_ranks
from tests.helpers.runs import (
    GLOBAL_BATCH,
    OPTIM,
    Case,
    full_state,
    global_batches,
    local_rows,
    toy_engine,
)
from tests.helpers.toy.stage import ToyStage

pytestmark = pytest.mark.slow
EVERY = [
    *(Case(z) for z in (0, 1, 2, 3)),
    *(Case(z, precision="bf16") for z in (1, 2, 3)),
    *(Case(z, one_message=True) for z in (1, 2)),
    Case(2, precision="bf16", one_message=True),
]
BAD_ROW = 13  # on the second of two ranks


class _InfiniteGradient(torch.autograd.Function):
    """A finite value with a gradient that is not: what only the norm can find."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        return grad * float("inf")


class Trapped(ToyStage):
    """The toy stage with an infinite gradient where a batch says so."""

    def forward(self, batch: dict[str, Any], features_only: bool = False) -> Any:
        encoded = super().forward(batch, features_only)
        if "trap" in batch and bool(batch["trap"].any()):
            encoded.features["student"] = _InfiniteGradient.apply(encoded.features["student"])
        return encoded


def stopped(cases: list[Case], trap: str) -> list[tuple[str, list[str]]]:
    """On all ranks: a good step and a bad one. The error of the bad one, and which tensors it changed."""
    proc = process.start(threads=1)
    found = []
    for case in cases:
        engine = toy_engine(case, proc, Trapped())
        good, bad = global_batches(2)
        bad["trap"] = (
            torch.arange(GLOBAL_BATCH) == BAD_ROW if trap == "gradient" else torch.zeros(GLOBAL_BATCH)
        )
        if trap == "loss":
            bad["x"][BAD_ROW] = float("nan")
        engine.step(local_rows(good, proc.world))
        before = full_state(engine)
        try:
            engine.step(local_rows(bad, proc.world))
            message = ""
        except NonFiniteError as error:
            message = str(error)
        after = full_state(engine)
        found.append(
            (message, [key for key, values in before.items() if not torch.equal(after[key], values)])
        )
        assert engine.completed_steps == 1
        engine.close()
    return found


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("micro_batch_size", [2, 8])
def test_non_finite_loss_stops_all_ranks(world_size: int, micro_batch_size: int) -> None:
    cases = [Case(z, micro_batch_size=micro_batch_size) for z in (0, 2, 3)]
    cases.append(Case(2, micro_batch_size=micro_batch_size, one_message=True))
    for of_rank in run_ranks(world_size, stopped, cases, "loss"):
        for message, changed in of_rank:
            assert "The loss of step 1 is not finite; nothing was applied" in message
            assert f"rank {world_size - 1}: sample-1-{BAD_ROW}." in message
            assert changed == []


@pytest.mark.parametrize("world_size", [1, 2])
def test_non_finite_gradient_stops_all_ranks(world_size: int) -> None:
    for of_rank in run_ranks(world_size, stopped, EVERY, "gradient"):
        for case, (message, changed) in zip(EVERY, of_rank, strict=True):
            assert "The gradient norm of step 1 is not finite; nothing was applied" in message, case
            assert changed == [], case


def before_and_after(cases: list[Case]) -> list[tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]]:
    """On all ranks: state after three steps, and the target copy that the fourth step's forward pass saw."""
    proc = process.start(threads=1)
    found = []
    for case in cases:
        engine = toy_engine(case, proc)
        for batch in global_batches(3):
            engine.step(local_rows(batch, proc.world))
        state = full_state(engine)
        seen: dict[str, torch.Tensor] = {}
        for name, module in engine.stage.target.named_modules(prefix="target"):
            # Appended behind DeepSpeed's hooks, which gather the weights in stage 3.
            module.register_forward_pre_hook(
                lambda m, _, name=name, seen=seen: seen.update(
                    {
                        f"ema/{name}.{n}": p.detach().flatten().clone()
                        for n, p in m.named_parameters(recurse=False)
                    }
                )
            )
        engine.step(local_rows(global_batches(3)[0], proc.world))
        found.append((state, seen))
        engine.close()
    return found


def test_target_copy_is_ema_rounded_once() -> None:
    for case, (state, seen) in zip(EVERY, run_ranks(2, before_and_after, EVERY)[1], strict=True):
        averages = {k: v for k, v in state.items() if k.startswith("ema/")}
        assert averages
        for key, average in averages.items():
            assert average.dtype == torch.float32
            assert torch.equal(seen[key], average.to(seen[key].dtype)), f"{case}: {key}"
            assert seen[key].dtype == (torch.bfloat16 if case.precision == "bf16" else torch.float32)


def refused(build: Any) -> str:
    """On all ranks: the message of a ConfigError or ValueError at construction."""
    proc = process.start(threads=1)
    try:
        build(proc)
    except (ConfigError, ValueError) as error:
        return str(error)
    return ""


def _wrong_sizes(proc: process.Process) -> None:
    Engine(ToyStage(), EngineConfig(OPTIM, Case(2).zero_config(), 10, 4, total_steps=20, seed=0), proc)


def _scalar_parameter(proc: process.Process) -> None:
    stage = ToyStage()
    stage.log_scale = torch.nn.Parameter(torch.tensor(1.0))
    toy_engine(Case(2), proc, stage)


def _forgotten_parameter(proc: process.Process) -> None:
    stage = ToyStage()
    groups = stage.param_groups(0.1)
    stage.param_groups = lambda weight_decay: groups[:1]  # type: ignore[method-assign]
    toy_engine(Case(2), proc, stage)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (_wrong_sizes, "global_batch_size 10 is not a multiple of micro_batch_size 4"),
        (_scalar_parameter, "parameter log_scale has shape (), which ZeRO cannot shard"),
        (_forgotten_parameter, "is in 0 groups, expected 1"),
    ],
)
def test_what_cannot_work_is_refused(build: Any, message: str) -> None:
    assert message in run_ranks(1, refused, build)[0]


class Careless(ToyStage):
    """Draws random numbers for its local loss first, so its dropout is another in the second pass."""

    def forward(self, batch: dict[str, Any], features_only: bool = False) -> Any:
        if not features_only:
            torch.rand(3)
        return super().forward(batch, features_only)


def train_careless(case: Case) -> None:
    """On all ranks: a few steps."""
    proc = process.start(threads=1)
    engine = toy_engine(case, proc, Careless())
    try:
        for batch in global_batches(3):
            engine.step(local_rows(batch, proc.world))
    finally:
        engine.close()


@pytest.mark.parametrize("case", [Case(2), Case(2, one_message=True)])
def test_stage_with_other_second_pass_is_refused(case: Case) -> None:
    with pytest.raises(RankError, match=r"differs by .* between the passes of a micro-batch"):
        run_ranks(1, train_careless, case)


class Counted(ToyStage):
    """The toy stage, which counts its forward passes."""

    passes = 0

    def forward(self, batch: dict[str, Any], features_only: bool = False) -> Any:
        self.passes += 1
        return super().forward(batch, features_only)


class Shared(Counted):
    """With gradients of two parameters that torch keeps in the same memory."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Parameter(torch.full((3,), 0.3)), nn.Parameter(torch.full((3,), 0.7))

    def forward(self, batch: dict[str, Any], features_only: bool = False) -> Any:
        encoded = super().forward(batch, features_only)
        student = encoded.features["student"]
        encoded.features["student"] = student * (1 + (self.left[None] + self.right[None]).square().mean())
        return encoded


STEPS = REPLAYS_CHECKED + 3


def outgrown(case: Case, stage: type[Counted]) -> tuple[int, int, dict[str, torch.Tensor]]:
    """On all ranks: forward passes of steps whose gradients outgrow all ceilings, how often they did, and the
    state afterwards."""
    proc = process.start(threads=1)
    counted = stage()
    engine = toy_engine(case, proc, counted)
    assert engine.sums is not None
    for batch in global_batches(STEPS):
        engine.sums.restore({})
        engine.step(local_rows(batch, proc.world))
    return counted.passes, engine.sums.redone, full_state(engine)


@pytest.mark.parametrize("stage", [Counted, Shared])
@pytest.mark.parametrize("zero", [1, 2])
def test_gradients_of_one_micro_batch_are_rounded_again_without_another_pass(
    zero: int, stage: type[Counted]
) -> None:
    case = Case(zero, micro_batch_size=GLOBAL_BATCH // 2, one_message=True)
    (passes, redone, state), _ = run_ranks(2, outgrown, case, stage)
    assert (passes, redone) == (STEPS + REPLAYS_CHECKED, STEPS), "the first steps check another pass"
    [(passes, redone, alone)] = run_ranks(1, outgrown, case, stage)
    assert (passes, redone) == (STEPS * (2 + 2 + 2), STEPS), "features, gradients, and the gradients again"
    assert state.keys() == alone.keys()
    assert all(torch.equal(state[key], alone[key]) for key in state)
