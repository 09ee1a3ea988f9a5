"""What a sample costs by a formula of this architecture, for `poma3d.cost.flops` to agree with."""

from __future__ import annotations

from dataclasses import dataclass

from poma3d.cost.flops import CONTEXT, PREDICTOR, SEARCH, TARGET
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
        return self.forward + self.backward


def parts_of_a_sample(
    kind: str, model: ModelConfig, loss: LossConfig, shape: SampleShape, tower: ImageTower, seed: int
) -> tuple[dict[str, float], float]:
    """Operations of a sample by part, and of a first pass without a graph; arguments as of `stage_flops`."""
    grid = patch_grid(shape, tower)
    vit = tower.on_grid(grid).shape
    tuning = model.encoder.tuning
    again = model.encoder.gradient_checkpointing
    whole = _encoder_pass(vit, tuning, again)
    first_pass = whole.forward * shape.views
    parts = {CONTEXT: whole.total * shape.views}
    if kind == "main" and loss.jepa:
        mask = sizes(model.masks, grid, seed, 0)
        hidden = mask.target[0] * mask.target[1]
        asked = shape.views * model.masks.target_blocks * hidden
        parts[CONTEXT] += _kept_pass(vit, tuning, mask.keep, again).total * shape.views
        parts[TARGET] = first_pass
        parts[PREDICTOR] = _predictor(model, vit.width, mask.keep, hidden, again).total * shape.views
        if loss.jepa_distance == CHAMFER:
            parts[SEARCH] = MULTIPLY_ADD * asked * asked * vit.width
    return parts, first_pass


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
    """A transformer block over `tokens`; `rank` of the adapters by linear layer.

    `again`: its forward is computed once more in the backward pass, up to the last tensor that is needed
    there: the input of the last product, which with an adapter is that of its second half.
    """
    total = _attention(tokens, tokens, width)
    for name in ("q", "k", "v", "out"):
        total += _linear(tokens, width, width, trains, rank.get(name, 0))
    total += _linear(tokens, width, mlp_width, trains, rank.get("fc1", 0))
    recomputed = total.forward if again else 0.0
    last = rank.get("fc2", 0)
    if again and last:
        recomputed += MULTIPLY_ADD * tokens * mlp_width * (width + last)
    return total + _linear(tokens, mlp_width, width, trains, last) + Cost(backward=recomputed)


def _attention_pool(vit: VitShape, tokens: int, trains: bool) -> Cost:
    """SigLIP's head: one query over the tokens, then an MLP."""
    ones = [(vit.width, vit.width), (vit.width, vit.mlp_width), (vit.mlp_width, vit.width)]
    query = MULTIPLY_ADD * vit.width * vit.width  # of a learned vector
    total = _attention(1, tokens, vit.width) + _linear(tokens, vit.width, vit.width, trains) * 2
    total += Cost(query, 2 * query if trains else 0)
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
