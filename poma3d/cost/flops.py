"""What a sample costs, counted over this architecture: floating-point operations of the products of matrices.

A multiply-add is two. Elementwise work is left out, as `torch.utils.flop_counter` leaves it out; a test holds
the two together. Passes of a main step (`poma3d.stages`): the context encoder over whole views and over the
kept patches, the target encoder without gradient, the predictor, the search of the Chamfer distance.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from poma3d.masking import sizes
from poma3d.network.config import CHAMFER, LORA, LossConfig, ModelConfig, TuningConfig
from poma3d.network.model import patch_grid
from poma3d.network.vit import ImageTower, VitShape
from poma3d.sample import SampleShape

MULTIPLY_ADD = 2
ATTENTION_BACKWARD = 2.5
"""Products of the attention's backward over those of its forward: the scores are computed again."""


@dataclass(frozen=True)
class Cost:
    """Operations of a forward pass, and of the backward pass that follows it."""

    forward: float = 0.0
    backward: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.forward + other.forward, self.backward + other.backward)

    def __mul__(self, times: float) -> Cost:
        return Cost(self.forward * times, self.backward * times)

    @property
    def total(self) -> float:
        """Both."""
        return self.forward + self.backward

    @property
    def without_gradient(self) -> Cost:
        """The forward pass alone."""
        return Cost(self.forward)


@dataclass(frozen=True)
class StageFlops:
    """Operations of one sample by part, and of one row of the contrastive losses against one other."""

    parts: dict[str, Cost]
    first_pass: Cost
    """What a second micro-batch on a rank adds: the features are computed once before, without a graph."""
    pair: Cost
    """A row of the contrastive losses with another. Every rank computes all rows with all."""
    rows: int
    """Rows of a sample in the losses over views; in those over scenes it has one."""
    scene_losses: bool = field(default=False)

    def per_sample(self, two_pass: bool) -> float:
        """Operations of a training step for one sample, without the contrastive losses."""
        return sum(part.total for part in self.parts.values()) + (self.first_pass.total if two_pass else 0.0)

    def contrast(self, global_batch_size: int) -> float:
        """Operations of a step's contrastive losses on each rank."""
        return self.pair.total * self.pairs(global_batch_size)

    def pairs(self, global_batch_size: int) -> int:
        """Rows of the contrastive losses against each other: logits of one of the two losses."""
        of_views = (self.rows * global_batch_size) ** 2
        return of_views + (global_batch_size**2 if self.scene_losses else 0)


def stage_flops(
    kind: str, model: ModelConfig, loss: LossConfig, shape: SampleShape, tower: ImageTower, seed: int
) -> StageFlops:
    """Count a stage. Mask sizes are those of epoch 0; they differ little between epochs.

    Args:
        kind: "warmup" or "main".
        model, loss, shape, tower, seed: as for `poma3d.stages.build_stage`.
    """
    grid = patch_grid(shape, tower)
    vit = tower.on_grid(grid).shape
    tuning = model.encoder.tuning
    again = model.encoder.gradient_checkpointing
    whole = _encoder_pass(vit, tuning, again)
    parts = {"context encoder, whole views": whole * shape.views}
    if kind == "main" and loss.jepa:
        mask = sizes(model.masks, grid, seed, 0)
        hidden = mask.target[0] * mask.target[1]
        asked = shape.views * model.masks.target_blocks * hidden
        parts["context encoder, kept patches"] = _kept_pass(vit, tuning, mask.keep, again) * shape.views
        parts["target encoder"] = whole.without_gradient * shape.views
        parts["predictor"] = _predictor(model, vit.width, mask.keep, hidden, again) * shape.views
        if loss.jepa_distance == CHAMFER:
            parts["Chamfer search"] = Cost(MULTIPLY_ADD * asked * asked * vit.width)
    # Two losses (image, text), each with a product forward and one backward: only one side has a gradient.
    pair = Cost(MULTIPLY_ADD * vit.joint, MULTIPLY_ADD * vit.joint) * 2
    return StageFlops(parts, whole.without_gradient * shape.views, pair, shape.views, kind == "main")


def _encoder_pass(vit: VitShape, tuning: TuningConfig, again: bool) -> Cost:
    """One view through patch embedding, blocks and head."""
    trains = tuning.mode != LORA
    # Trained in either mode, and nothing before it wants a gradient: weights alone.
    embed = MULTIPLY_ADD * vit.patches * vit.channels * vit.patch**2 * vit.width
    head = (
        _linear(1, vit.width, vit.joint, trains)
        if vit.pooling == "class"
        else _attention_pool(vit, vit.patches, trains)
    )
    tokens = vit.patches + (vit.pooling == "class")
    return Cost(embed, embed) + _encoder_blocks(vit, tuning, tokens, again) + head


def _kept_pass(vit: VitShape, tuning: TuningConfig, kept: int, again: bool) -> Cost:
    """The kept patches of one view through the blocks; the patch embedding is shared."""
    return _encoder_blocks(vit, tuning, kept + (vit.pooling == "class"), again)


def _encoder_blocks(vit: VitShape, tuning: TuningConfig, tokens: int, again: bool) -> Cost:
    rank = dict.fromkeys(tuning.targets, tuning.rank) if tuning.mode == LORA else {}
    block = _block(tokens, vit.width, vit.mlp_width, tuning.mode != LORA, rank, again)
    return block * vit.layers


def _predictor(model: ModelConfig, width: int, kept: int, hidden: int, again: bool) -> Cost:
    """One view: every target block is a sequence of its own behind the context."""
    cfg = model.predictor
    blocks = model.masks.target_blocks
    mlp_width = int(cfg.width * cfg.mlp_ratio)
    block = _block(kept + hidden, cfg.width, mlp_width, True, {}, again)
    return (
        _linear(kept, width, cfg.width, True)
        + block * (cfg.layers * blocks)
        + _linear(hidden, cfg.width, width, True) * blocks
    )


def _block(tokens: int, width: int, mlp_width: int, trains: bool, rank: dict[str, int], again: bool) -> Cost:
    """A transformer block over `tokens`; `rank` of the adapters by linear layer. `again`: its forward is
    computed once more in the backward pass, up to the last product, whose result nobody needs."""
    total = _attention(tokens, tokens, width)
    for name in ("q", "k", "v", "out"):
        total += _linear(tokens, width, width, trains, rank.get(name, 0))
    total += _linear(tokens, width, mlp_width, trains, rank.get("fc1", 0))
    recomputed = total.forward if again else 0.0
    return total + _linear(tokens, mlp_width, width, trains, rank.get("fc2", 0)) + Cost(backward=recomputed)


def _attention_pool(vit: VitShape, tokens: int, trains: bool) -> Cost:
    """SigLIP's head: one query over the tokens, then an MLP."""
    ones = [(vit.width, vit.width)] * 2 + [(vit.width, vit.mlp_width), (vit.mlp_width, vit.width)]
    total = _attention(1, tokens, vit.width) + _linear(tokens, vit.width, vit.width, trains) * 2
    for width_in, width_out in ones:
        total += _linear(1, width_in, width_out, trains)
    return total


def _attention(queries: int, keys: int, width: int) -> Cost:
    forward = 2 * MULTIPLY_ADD * queries * keys * width  # scores, then values
    return Cost(forward, ATTENTION_BACKWARD * forward)


def _linear(tokens: int, width_in: int, width_out: int, trains: bool, rank: int = 0) -> Cost:
    """Backward: the gradient of the input, and that of the weights where they are trained."""
    base = MULTIPLY_ADD * tokens * width_in * width_out
    adapter = MULTIPLY_ADD * tokens * rank * (width_in + width_out)
    return Cost(base + adapter, base * (2 if trains else 1) + 2 * adapter)
