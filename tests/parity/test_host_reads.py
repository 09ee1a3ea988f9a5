"""No step waits for the device but once, at its end, shown without a device: in torch's FakeTensorMode every
read of a tensor's value by the host raises, for tensors on a CPU too.

What the host does before the batch goes to a device (`prepare`) and with the numbers that were read at the
end (the decision, DeepSpeed's step) is left out of the mode.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    FakeTensorMode,
    unset_fake_temporarily,
)

from plinth.engine import global_batch, process
from plinth.engine.config import OptimConfig, ZeroConfig
from plinth.engine.engine import Engine, EngineConfig
from poma3d.network.config import LossConfig
from poma3d.stages import build_stage
from tests.helpers import tiny
from tests.helpers.ranks import RankError, run_ranks

pytestmark = pytest.mark.slow
GLOBAL_BATCH, STEPS = 4, 10
KINDS, MICRO_BATCHES = ("warmup", "main"), (2, 4)


def on_host(function: Callable[..., Any]) -> Callable[..., Any]:
    def outside(*arguments: Any, **named: Any) -> Any:
        with unset_fake_temporarily():
            return function(*arguments, **named)

    return outside


def reads_of_a_step(kind: str, micro_batch_size: int, peeks: bool = False) -> list[int]:
    """On a rank: how many numbers each read of a step fetched; with `peeks` the stage reads one itself."""
    proc = process.start(threads=1)
    model = tiny.model_config("full")
    model.train_logit_scale = True
    stage = build_stage(kind, model, LossConfig(dense=1.0), tiny.shape(), tiny.tower(), 0)
    config = EngineConfig(
        OptimConfig(warmup_steps=1), ZeroConfig(), GLOBAL_BATCH, micro_batch_size, STEPS, seed=0
    )
    engine = Engine(stage, config, proc)
    batch = stage.fake_batch(GLOBAL_BATCH)
    engine.step(batch)  # the layouts are known from here on
    reads: list[int] = []
    mode = FakeTensorMode(allow_non_fake_inputs=True)

    def to_device(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
        return {k: mode.from_tensor(v) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}

    def host(numbers: torch.Tensor) -> np.ndarray:
        reads.append(numbers.numel())
        return np.zeros(tuple(numbers.shape))

    contrast = stage.contrast

    def peeking(features: dict[str, torch.Tensor]) -> Any:
        found = contrast(features)
        if peeks:
            found.total.item()
        return found

    with (
        mock.patch.multiple(global_batch, split=on_host(global_batch.split), to_device=to_device, host=host),
        mock.patch.multiple(stage, prepare=on_host(stage.prepare), contrast=peeking),
        mock.patch.object(engine._gradients, "step", return_value=1.0),
        mode,
    ):
        try:
            engine.step(batch, details=True)
        except DataDependentOutputException as error:
            raise AssertionError("a value was read in the middle of the step") from error
    engine.close()
    return reads


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("micro_batch_size", MICRO_BATCHES)
def test_a_step_reads_once(kind: str, micro_batch_size: int) -> None:
    reads = run_ranks(1, reads_of_a_step, kind, micro_batch_size)[0]
    assert len(reads) == 1


def test_a_stage_that_reads_is_seen() -> None:
    with pytest.raises(RankError, match="a value was read in the middle of the step"):
        run_ranks(1, reads_of_a_step, "main", 4, True)
