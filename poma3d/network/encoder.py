"""The point-map encoder: the teacher's image tower, tuned to read x, y, z instead of r, g, b.

Legend, also of the suffixes of tensors: n views, H W pixels, P patches, K kept patches, D width, E joint
space.
"""

from __future__ import annotations

import re

from torch import Tensor, nn

from poma3d.network.config import (
    AOT_EAGER,
    AS_WRITTEN,
    FULL,
    INDUCTOR,
    LORA,
    LORA_TARGETS,
    EncoderConfig,
    TuningConfig,
)
from poma3d.network.vit import ImageTower, VisionTransformer, VitOutput


def validate(config: EncoderConfig) -> None:
    """Refuse contradictions.

    Raises:
        ValueError: naming the field and what is possible.
    """
    if config.tuning.mode not in (FULL, LORA):
        raise ValueError(f"encoder.tuning.mode is '{config.tuning.mode}'; use '{LORA}' or '{FULL}'")
    backends = (AS_WRITTEN, INDUCTOR, AOT_EAGER)
    if config.compile not in backends:
        raise ValueError(f"encoder.compile is '{config.compile}'; use one of {', '.join(backends)}")
    unknown = sorted(set(config.tuning.targets) - set(LORA_TARGETS))
    if unknown or not config.tuning.targets:
        raise ValueError(
            f"encoder.tuning.targets {list(config.tuning.targets)}: choose one or more of "
            f"{list(LORA_TARGETS)}"
        )
    if config.tuning.rank < 1 or not 0 <= config.tuning.dropout < 1:
        raise ValueError(
            f"encoder.tuning.rank {config.tuning.rank} must be at least 1 and "
            f"encoder.tuning.dropout {config.tuning.dropout} in [0, 1)"
        )


class PointMapEncoder(nn.Module):
    """Point maps -> a feature per view in the teacher's joint space, and patch tokens."""

    def __init__(self, vit: VisionTransformer) -> None:
        super().__init__()
        self.vit = vit

    def forward(self, points_n3HW: Tensor, keep_nK: Tensor | None = None) -> VitOutput:
        """Encode views.

        Args:
            points_n3HW: metres, any memory format; (0, 0, 0) where there is no depth.
            keep_nK: patches of a second pass that sees those alone.

        Returns:
            `VitOutput`: pooled feature [n, E] in float32, not normalised; tokens in the dtype of the
            weights, as the tower's last layer leaves them.
        """
        output: VitOutput = self.vit(points_n3HW, keep_nK)
        return output._replace(pooled=output.pooled.float())


def compile_encoder(encoder: PointMapEncoder, backend: str) -> None:
    """Let torch compile the encoder's calls from the first one on; names of weights stay.

    Args:
        backend: as `EncoderConfig.compile`.
    """
    if backend == INDUCTOR:
        # Its own random numbers would differ between the two passes of a step, and with them dropout.
        encoder.compile(backend=backend, options={"fallback_random": True})
    elif backend != AS_WRITTEN:
        encoder.compile(backend=backend)


def build_encoder(config: EncoderConfig, tower: ImageTower, grid: tuple[int, int]) -> PointMapEncoder:
    """An encoder that starts as `tower`, on the patch grid of the views.

    Adapters draw their first weights from torch's global generator.
    """
    placed = tower.on_grid(grid)
    vit = VisionTransformer(placed.shape, config.input_gain, config.gradient_checkpointing)
    vit.load_state_dict(placed.state)
    if config.tuning.mode == LORA:
        _add_adapters(vit, config.tuning)
    return PointMapEncoder(vit)


def _add_adapters(vit: VisionTransformer, config: TuningConfig) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    names = "|".join(re.escape(name) for name in config.targets)
    adapters = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=rf"blocks\.\d+\.(attn|mlp)\.({names})",
    )
    inject_adapter_in_model(adapters, vit)  # freezes everything else
    vit.patch_embed.requires_grad_(True)  # the one layer that meets metres instead of colours


def merge_adapters(vit: VisionTransformer) -> None:
    """Fold adapters into the weights they adapt, in place; nothing is left of them."""
    from peft.tuners.lora import LoraLayer

    for name, module in list(vit.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge(safe_merge=True)
            parent, _, child = name.rpartition(".")
            setattr(vit.get_submodule(parent), child, module.get_base_layer())
