"""What a sample costs: floating-point operations of the products of matrices, as torch's own counter counts.

The stage's passes run on fake tensors, which compute nothing, so the count follows the code: adapters, the
forward passes that checkpointing repeats, the search of the Chamfer distance. A multiply-add is two
operations; elementwise work is left out. A test holds a formula against it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.func import functional_call

from poma3d import losses
from poma3d.cost.activations import fake_state, meta_stage, outline
from poma3d.cost.torch_internals import FakeTensorMode, flop_counter
from poma3d.masking import sizes
from poma3d.network.config import CHAMFER, LossConfig, ModelConfig
from poma3d.network.vit import ImageTower
from poma3d.sample import SampleShape
from poma3d.stages import MainStage, WarmupStage

CONTEXT, TARGET, PREDICTOR, SEARCH = "context encoder", "target encoder", "predictor", "Chamfer search"
FIRST_PASS = "first pass"
PRODUCTS_OF_A_PAIR = 4
"""Of two losses (image, text), each a product forward and one backward: only one side has a gradient."""


@dataclass(frozen=True)
class StageFlops:
    """Operations of one sample by part, and of one row of the contrastive losses against one other."""

    parts: dict[str, float]
    """Forward and backward."""
    first_pass: float
    """What a second micro-batch on a rank adds: the features are computed once before, without a graph."""
    pair: float
    """A row of the contrastive losses with another. Every rank computes all rows with all."""
    rows: int
    """Rows of a sample in the losses over views; in those over scenes it has one."""
    scene_losses: bool = False

    def per_sample(self, two_pass: bool) -> float:
        """Operations of a training step for one sample, without the contrastive losses."""
        return sum(self.parts.values()) + (self.first_pass if two_pass else 0.0)

    def contrast(self, global_batch_size: int) -> float:
        """Operations of a step's contrastive losses on each rank."""
        return self.pair * self.pairs(global_batch_size)

    def pairs(self, global_batch_size: int) -> int:
        """Rows of the contrastive losses against each other: logits of one of the two losses."""
        return pairs(self.rows, global_batch_size, self.scene_losses)


def pairs(rows: int, global_batch_size: int, scene_losses: bool) -> int:
    """The same from the fields of `StageFlops`."""
    return (rows * global_batch_size) ** 2 + (global_batch_size**2 if scene_losses else 0)


def stage_flops(
    kind: str, model: ModelConfig, loss: LossConfig, shape: SampleShape, tower: ImageTower, seed: int
) -> StageFlops:
    """Count a stage. Mask sizes are those of epoch 0; they differ little between epochs.

    Args:
        kind: "warmup" or "main".
        model, loss, shape, tower, seed: as for `poma3d.stages.build_stage`.
    """
    sample = _Sample(meta_stage(kind, model, loss, shape, outline(tower.shape)), seed)
    with FakeTensorMode():
        functional_call(sample, fake_state(sample), ())
    counted = sample.counted
    first_pass = counted[FIRST_PASS]
    if sample.predictor is not None:
        counted[TARGET] = first_pass  # a twin of the context encoder, without gradient
    parts = {name: counted[name] for name in (CONTEXT, TARGET, PREDICTOR, SEARCH) if name in counted}
    pair = 2 * PRODUCTS_OF_A_PAIR * tower.shape.joint
    return StageFlops(parts, first_pass, pair, shape.views, kind == "main")


class _Sample(nn.Module):
    """A training step for one sample, up to the features that are contrasted.

    A module, because the repeated forward passes of checkpointing need its fake weights in the backward pass.
    """

    def __init__(self, stage: WarmupStage | MainStage, seed: int) -> None:
        super().__init__()
        self.encoder = stage.encoder
        self.predictor = stage.predictor if isinstance(stage, MainStage) else None
        self.counted: dict[str, float] = {}
        self._stage = (stage,)  # in a tuple: no second owner of its parameters
        self._mask = sizes(stage.model_config.masks, stage.grid, seed, 0)

    def forward(self) -> None:
        """Fill `counted`."""
        (stage,) = self._stage
        shape, mask = stage.shape, self._mask
        points = torch.empty(shape.views, 3, shape.height, shape.width)
        index = torch.zeros(shape.views, mask.keep, dtype=torch.int64)
        with self._count(FIRST_PASS):
            self.encoder(points)
        with self._count(CONTEXT):
            output = self.encoder(points, None if self.predictor is None else index)
        outputs, gradients = [output.pooled], [torch.ones_like(output.pooled)]
        if self.predictor is not None:
            kept = output.kept.float().detach().requires_grad_()
            asked = torch.zeros(
                shape.views, stage.model_config.masks.target_blocks, mask.target[0] * mask.target[1],
                dtype=torch.int64,
            )  # fmt: skip
            with self._count(PREDICTOR):
                predicted = self.predictor(kept, index, asked).flatten(0, 2)[None]
                predicted.sum().backward()
            if stage.loss_config.jepa_distance == CHAMFER:
                valid = torch.ones(predicted.shape[:2], dtype=torch.bool)
                with self._count(SEARCH):
                    losses.chamfer(predicted.detach(), torch.empty_like(predicted), valid, valid)
            outputs.append(output.kept)
            gradients.append(kept.grad)
        with self._count(CONTEXT):
            torch.autograd.backward(outputs, gradients)

    @contextmanager
    def _count(self, part: str) -> Iterator[None]:
        with flop_counter() as counter:
            yield
        self.counted[part] = self.counted.get(part, 0) + counter.get_total_flops()
