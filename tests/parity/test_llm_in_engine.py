"""A language model on scenes through the engine: two ranks give the bits of one, and both PyTorch's weights;
frozen weights are in no checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from plinth.engine import process
from plinth.engine.config import OptimConfig, Precision, ZeroConfig
from plinth.engine.engine import Engine, EngineConfig
from poma3d.llm.config import FULL, LORA, PROJECTOR
from poma3d.llm.stage import ConversationStage
from tests.helpers import reference
from tests.helpers.downstream import llm, scenes
from tests.helpers.ranks import run_ranks
from tests.helpers.reference import Trained
from tests.helpers.runs import trained_by

pytestmark = pytest.mark.slow
GLOBAL_BATCH, MICRO_BATCH, STEPS, SEED = 4, 2, 3, 5
OPTIM = OptimConfig(lr=1e-3, warmup_steps=1, weight_decay=0.1, grad_clip=5.0)
ASKED_ABOUT = [0, 0, 2, 1]
"""Scene of each conversation of a batch: in a micro-batch one twice, or two."""


@dataclass(frozen=True)
class Case:
    """What is trained, and how."""

    zero: int
    kind: str = llm.QWEN3
    tune: str = LORA
    tokens: str = "voxels"
    trained: bool = False
    loss: str = "tokens"
    dropout: float = 0.0
    precision: Precision = Precision.fp32
    checkpointing: bool = False

    def stage(self) -> ConversationStage:
        return llm.stage(
            self.kind, self.tune, self.tokens, self.trained, self.loss, self.dropout, self.checkpointing
        )


CASES = [
    Case(2),
    Case(3, llm.QWEN3_VL, dropout=0.3, checkpointing=True),
    Case(3, llm.ONEVISION, trained=True),
    Case(2, tune=FULL, tokens="views", trained=True, loss="samples"),
    Case(3, tune=FULL, tokens="patches"),
    Case(0, tune=PROJECTOR),
    Case(3, llm.ONEVISION, precision=Precision.bf16, checkpointing=True),
]


def batches(case: Case) -> list[dict[str, Any]]:
    made = [case.stage().fake_batch(GLOBAL_BATCH, seed=step) for step in range(STEPS)]
    for step, batch in enumerate(made):
        batch["sample_valid"][1] = False
        batch["epoch"] += step
    return [scenes.by_scene(batch, ASKED_ABOUT) for batch in made]


def train(cases: list[Case], exact_sums: bool) -> list[Trained]:
    """Every case in the same processes."""
    return [trained_by(_engine(case, exact_sums), batches(case)) for case in cases]


def _engine(case: Case, exact_sums: bool) -> Engine:
    proc = process.start(threads=1)
    zero = ZeroConfig(stage=case.zero, precision=case.precision, bucket_size=1000, exact_sums=exact_sums)
    return Engine(case.stage(), EngineConfig(OPTIM, zero, GLOBAL_BATCH, MICRO_BATCH, STEPS, SEED), proc)


def test_two_ranks_give_the_bits_of_one() -> None:
    one, two = run_ranks(1, train, CASES, True)[0], run_ranks(2, train, CASES, True)[0]
    for case, alone, both in zip(CASES, one, two, strict=True):
        if case.zero == 0:  # at powers of two DeepSpeed's average is exact, its norm is not ours
            assert alone.losses == pytest.approx(both.losses, rel=1e-6), case
            continue
        assert (alone.losses, alone.grad_norms) == (both.losses, both.grad_norms), case
        assert alone.weights.keys() == both.weights.keys()
        for name, weights in alone.weights.items():
            assert torch.equal(weights, both.weights[name]), (case, name)


def test_a_language_model_trains_as_in_pytorch() -> None:
    cases = CASES[:3]
    found = run_ranks(2, train, cases, False)[0]
    for case, through_engine in zip(cases, found, strict=True):
        expected = reference.train(case.stage(), batches(case), OPTIM, MICRO_BATCH, SEED, STEPS)
        assert through_engine.losses == pytest.approx(expected.losses, rel=1e-5), case
        frozen = set(case.stage().unsaved())  # in no checkpoint
        own = {name: weights for name, weights in expected.weights.items() if name not in frozen}
        assert through_engine.weights.keys() == own.keys()
        for name, weights in own.items():
            torch.testing.assert_close(
                through_engine.weights[name], weights, rtol=0, atol=2e-5, msg=f"{case}: {name}"
            )
