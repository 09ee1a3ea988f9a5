"""How large a stage is, and what its forward pass keeps for the backward pass, without computing any of it.

The stage is built without memory (torch's meta device) and run on fake tensors, which have shapes and
dtypes and no data; what autograd would save is added up. So the count follows the code, adapters, dropout
and all, and takes a second for any size.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from poma3d import losses
from poma3d.cost.torch_internals import FakeTensorMode, storage_id
from poma3d.masking import sizes
from poma3d.network.config import CHAMFER, LossConfig, ModelConfig
from poma3d.network.vit import Block, Blocks, ImageTower, VisionTransformer, VitShape
from poma3d.sample import SampleShape
from poma3d.stages import STAGES, MainStage, WarmupStage

FLOAT32_BYTES = 4
DEPTH_BYTES = 2
WORKING_COPIES = 3
"""Tensors of the widest layer that exist at once while a block is passed, beside what is saved."""
MATCHED_COPIES = 4
"""float32 tensors as large as a scene's targets: they, the predictions, and what each was matched with."""


@dataclass(frozen=True)
class StageSize:
    """Numbers of parameters."""

    parameters: int
    trainable: int
    averaged: int
    """Those that have a copy in the target encoder."""


@dataclass(frozen=True)
class Activations:
    """Bytes of one sample."""

    saved: dict[str, int]
    """Kept until the backward pass, by part of the model."""
    inputs: int
    """The batch and its point maps."""
    working: int
    """Besides, while the passes run."""
    block: int
    """A slice of the distances of the Chamfer search; does not grow with the micro-batch."""

    def of(self, samples: int) -> int:
        """Bytes of a micro-batch."""
        return samples * (sum(self.saved.values()) + self.inputs + self.working) + self.block


def outline(shape: VitShape, logit_scale: float = 0.0) -> ImageTower:
    """An image tower of that shape without weights, for `meta_stage`."""
    with torch.device("meta"):
        return ImageTower(shape, dict(VisionTransformer(shape).state_dict()), logit_scale)


def meta_stage(
    kind: str, model: ModelConfig, loss: LossConfig, shape: SampleShape, tower: ImageTower
) -> WarmupStage | MainStage:
    """The stage as `build_stage` makes it, without memory for its weights."""
    with torch.device("meta"):
        stage = STAGES[kind](model, loss, shape, tower, seed=0)
    return stage.train()


def stage_size(stage: WarmupStage | MainStage) -> StageSize:
    """Count the parameters."""
    by_name = dict(stage.named_parameters())
    return StageSize(
        parameters=sum(p.numel() for p in by_name.values()),
        trainable=sum(p.numel() for p in by_name.values() if p.requires_grad),
        averaged=sum(by_name[name].numel() for name in stage.ema_pairs()),
    )


def input_bytes(stage: WarmupStage | MainStage) -> int:
    """A sample's depth and its point maps."""
    shape = stage.shape
    of_pixel = DEPTH_BYTES + stage.encoder.vit.shape.channels * FLOAT32_BYTES
    return shape.views * shape.height * shape.width * of_pixel


def activations(stage: WarmupStage | MainStage, dtype: torch.dtype) -> Activations:
    """Count what one sample keeps.

    Args:
        stage: from `meta_stage`; left as it is.
        dtype: of weights and activations.
    """
    shape, vit = stage.shape, stage.encoder.vit.shape
    views, patches, width = shape.views, vit.patches, vit.width
    predictor = getattr(stage, "predictor", None)
    mask = sizes(stage.model_config.masks, stage.grid, stage.seed, 0) if predictor is not None else None
    saved: dict[str, int] = {}
    encoder = copy.deepcopy(stage.encoder).to(dtype)
    predictor = None if predictor is None else copy.deepcopy(predictor).to(dtype)
    with FakeTensorMode():
        points = torch.empty(views, vit.channels, shape.height, shape.width)
        index = None if mask is None else torch.zeros(views, mask.keep, dtype=torch.int64)
        weights = fake_state(encoder)
        meter = BlockMeter(encoder, weights)
        with meter.open():
            output = functional_call(encoder, weights, (points, index))
        saved["context encoder"] = meter.bytes()
        tokens, wide = views * (patches + 1), max(vit.mlp_width, 3 * width)
        matched = block = of_predictor = 0
        if predictor is not None and mask is not None and index is not None:
            hidden = mask.target[0] * mask.target[1]
            asked = torch.zeros(views, stage.model_config.masks.target_blocks, hidden, dtype=torch.int64)
            # Every target block is a sequence of its own: often more tokens than the encoder's, if narrower.
            sequences = asked[..., 0].numel() * (mask.keep + hidden)
            of_predictor = sequences * predictor.blocks[0].mlp.fc1.out_features
            start = losses.layer_norm(output.kept).to(dtype)
            weights = fake_state(predictor)
            meter = BlockMeter(predictor, weights)
            with meter.open():
                predicted = functional_call(predictor, weights, (start, index, asked))
            saved["predictor"] = meter.bytes()
            rows = predicted.flatten(0, 2).float()[None]
            matched = rows.numel() * FLOAT32_BYTES
            if stage.loss_config.jepa_distance == CHAMFER:
                valid = torch.ones(1, rows.shape[1], dtype=torch.bool)
                meter = BlockMeter(None, {})
                with meter.open():
                    losses.chamfer(rows, torch.empty_like(rows), valid, valid)
                saved["Chamfer distance"] = meter.bytes()
                block = 2 * FLOAT32_BYTES * min(losses.BLOCK_ELEMENTS, rows.shape[1] ** 2)
    widest = dtype.itemsize * max(tokens * wide, of_predictor)
    target_tokens = views * patches * width * FLOAT32_BYTES if predictor is not None else 0
    return Activations(
        saved=saved,
        inputs=input_bytes(stage),
        working=WORKING_COPIES * widest + target_tokens + MATCHED_COPIES * matched,
        block=block,
    )


def fake_state(module: nn.Module) -> dict[str, Tensor]:
    """Fake parameters and buffers in place of meta ones; call inside a `FakeTensorMode`."""
    found: dict[str, Any] = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return {
        name: torch.empty(t.shape, dtype=t.dtype).requires_grad_(t.requires_grad) for name, t in found.items()
    }


class BlockMeter:
    """What autograd saves while the meter is open: every storage once, those of the weights not at all.

    Where blocks are recomputed in the backward pass, what is saved inside them is not kept: their inputs are,
    and the inside of one block at a time.
    """

    def __init__(self, module: nn.Module | None, weights: dict[str, Tensor]) -> None:
        modules = list(module.modules()) if module is not None else []
        self._rows = [m for m in modules if isinstance(m, Blocks)]
        self._blocks = [m for m in modules if isinstance(m, Block)]
        self._is_recomputed = any(row.checkpointing for row in self._rows)
        self._weights = {storage_id(weight) for weight in weights.values()}
        self._seen: dict[int, Tensor] = {}  # the tensors themselves: an address is used again
        self._total = self._inputs = self._entered = 0
        self._inside = [0]

    @property
    def total(self) -> int:
        """What was saved, wherever."""
        return self._total

    def bytes(self) -> int:
        """What was kept."""
        if not self._is_recomputed:
            return self._total
        return self._total - sum(self._inside) + self._inputs + max(self._inside)

    def before(self, block: nn.Module, arguments: tuple[Any, ...]) -> None:
        """A block begins."""
        self._inputs += arguments[0].numel() * arguments[0].element_size()
        self._entered = self._total

    def after(self, block: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
        """A block has ended."""
        self._inside.append(self._total - self._entered)

    @contextmanager
    def open(self) -> Iterator[None]:
        """Meter what runs inside."""
        for row in self._rows:
            row.checkpointing = False  # its own hooks would hide what is saved
        hooks = [block.register_forward_pre_hook(self.before) for block in self._blocks]
        hooks += [block.register_forward_hook(self.after) for block in self._blocks]
        try:
            with torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor):
                yield
        finally:
            for hook in hooks:
                hook.remove()

    def _pack(self, tensor: Tensor) -> Tensor:
        key = storage_id(tensor)
        if key not in self._weights and key not in self._seen:
            self._seen[key] = tensor
            self._total += tensor.untyped_storage().nbytes()
        return tensor
