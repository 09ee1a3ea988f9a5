"""The most that a stage's forward pass may keep for the backward pass, from its sizes alone.

`activations` counts it, for which it loads torch's tracing and compiler. Where even this bound is small
beside the memory that is there, nobody has to count.
"""

from __future__ import annotations

from poma3d import losses
from poma3d.cost.activations import FLOAT32_BYTES, MATCHED_COPIES, Activations, input_bytes
from poma3d.stages import MainStage, WarmupStage

WIDTHS = 24
"""Tensors as wide as a token that a block keeps in a pass, adapters and dropout included."""
HIDDEN = 8
"""The same as wide as the MLP's inside."""
SCORES = 3
"""Tensors of attention scores, as of an attention that keeps them."""
WHOLE_BLOCKS = 3
"""Blocks more: the tokens before and after them, and what exists while one is passed."""


def most_activations(stage: WarmupStage | MainStage) -> Activations:
    """At least what `activations` counts, in any precision.

    Args:
        stage: with or without memory for its weights.
    """
    shape, vit, model = stage.shape, stage.encoder.vit.shape, stage.model_config
    again = model.encoder.gradient_checkpointing
    of_view = _kept(vit.layers, vit.patches + 1, vit.width, vit.mlp_width, vit.heads, again)
    saved, rows = {"context encoder": shape.views * of_view}, 0
    if isinstance(stage, MainStage):
        saved["context encoder"] *= 2  # it sees all patches, and those that are not hidden
        inside, asked = model.predictor, shape.views * model.masks.target_blocks
        # A target block is a sequence of its own: its patches and those of the context.
        mlp_width = int(inside.width * inside.mlp_ratio)
        of_block = _kept(inside.layers, 2 * vit.patches, inside.width, mlp_width, inside.heads, again)
        saved["predictor"] = asked * of_block
        rows = asked * vit.patches
    return Activations(
        saved=saved,
        inputs=input_bytes(stage),
        working=3 * MATCHED_COPIES * FLOAT32_BYTES * rows * vit.width,
        block=2 * FLOAT32_BYTES * min(losses.BLOCK_ELEMENTS, rows**2),
    )


def _kept(layers: int, sequence: int, width: int, mlp_width: int, heads: int, again: bool) -> int:
    """Bytes of one sequence in float32.

    Args:
        again: blocks are computed again in the backward pass, so that only what enters them is kept.
    """
    of_block = WIDTHS * width + HIDDEN * mlp_width + SCORES * heads * sequence
    kept = layers * (width if again else of_block) + WHOLE_BLOCKS * of_block
    return sequence * kept * FLOAT32_BYTES
