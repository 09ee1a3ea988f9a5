"""I-JEPA's multi-block masks, drawn so that a sample's masks depend on that sample alone.

Per view: a few target blocks and one large context block minus the targets. To stack views, I-JEPA
draws block *sizes* once per batch and trims every context to the smallest of the batch; both make a
sample depend on its companions, so that another micro-batch or world size would train differently.
Here:

- block sizes are drawn once per (seed, epoch): few sizes exist on such grids anyway, and block
  *positions* stay free per (seed, epoch, sample, view);
- every context is trimmed to one count per (seed, epoch): the low quantile (`keep_quantile`) of the
  counts of a few hundred reference layouts of these sizes, which is what the smallest of a batch
  amounts to. A view whose blocks leave less is drawn again, as I-JEPA does below its minimum.
- which tokens are trimmed is drawn too. Cutting from the end, as I-JEPA does, would always
  hide the bottom of a view.

Legend: B samples, V views, M target blocks, R rows and S columns of the patch grid, P = R*S patches
in row order, K kept context patches, N patches of a target block.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from poma3d.network.config import MaskConfig
from poma3d.randomness import generator

REFERENCE_LAYOUTS = 512
"""Layouts from which the kept count of an epoch is read."""
TRIES = 16
"""Times that a view below the kept count is drawn again before a reference layout takes its place."""


class Sizes(NamedTuple):
    """What all views of an epoch share."""

    target: tuple[int, int]
    """(rows, columns) of every target block."""
    context: tuple[int, int]
    """(rows, columns) of the context block."""
    keep: int
    """Context patches kept of every view, K."""
    fallback: Tensor
    """[M+1, 2] block corners (row, column) of the reference layout with the most context."""


class Masks(NamedTuple):
    """Indices of patches, int64."""

    context: Tensor
    """[B, V, K] ascending."""
    targets: Tensor
    """[B, V, M, N] row by row within a block."""


def validate(config: MaskConfig, grid: tuple[int, int]) -> None:
    """Refuse masks that this grid cannot hold, before anything starts.

    Raises:
        ValueError: naming the field, the numbers that disagree and what to do.
    """
    for name in ("target_scale", "target_aspect", "context_scale"):
        low, high = getattr(config, f"{name}_min"), getattr(config, f"{name}_max")
        if not 0 < low <= high or (name != "target_aspect" and high > 1):
            raise ValueError(f"masks.{name}_min {low} and masks.{name}_max {high} are not a range of shares")
    if config.target_blocks < 1 or config.min_context < 1 or not 0 <= config.keep_quantile < 1:
        raise ValueError(
            "masks.target_blocks and masks.min_context must be at least 1, masks.keep_quantile in [0, 1)"
        )
    hardest = _block(grid, config.target_scale_max, 1.0)
    context = _block(grid, config.context_scale_min, grid[0] / grid[1])
    counts, _ = _reference(config, grid, hardest, context, generator("mask-check", 0, 0, 0))
    usual = int(counts.median())  # half of all draws leave this or more: redrawing finds one
    if usual < config.min_context:
        raise ValueError(
            f"on a patch grid of {grid[0]} x {grid[1]}, {config.target_blocks} target blocks of "
            f"{hardest[0]} x {hardest[1]} usually leave {usual} context patches, fewer than "
            f"masks.min_context {config.min_context}: lower masks.min_context or "
            "masks.target_scale_max, or use smaller patches"
        )


@lru_cache(maxsize=8)
def _sizes(fields: tuple[float, ...], grid: tuple[int, int], seed: int, epoch: int) -> Sizes:
    config = MaskConfig(*fields)  # type: ignore[arg-type]
    draw = generator("mask-sizes", seed, epoch, 0)
    u = torch.rand(3, generator=draw).tolist()
    scale = config.target_scale_min + u[0] * (config.target_scale_max - config.target_scale_min)
    aspect = config.target_aspect_min + u[1] * (config.target_aspect_max - config.target_aspect_min)
    target = _block(grid, scale, aspect)
    context_scale = config.context_scale_min + u[2] * (config.context_scale_max - config.context_scale_min)
    context = _block(grid, context_scale, grid[0] / grid[1])
    counts, corners = _reference(config, grid, target, context, draw)
    kept = int(torch.quantile(counts.float(), config.keep_quantile, interpolation="lower"))
    best = int(counts.argmax())
    return Sizes(
        target, context, max(1, min(max(kept, config.min_context), int(counts[best]))), corners[best]
    )


def sizes(config: MaskConfig, grid: tuple[int, int], seed: int, epoch: int) -> Sizes:
    """Block sizes and kept count of an epoch."""
    return _sizes(tuple(vars(config).values()), grid, seed, epoch)


def draw_masks(
    config: MaskConfig, grid: tuple[int, int], views: int, seed: int, epochs: list[int], keys: list[int]
) -> Masks:
    """Masks of B samples of V views.

    Args:
        grid: (rows, columns) of patches.
        epochs: one per sample, all the same (the data order never mixes epochs in a batch).
        keys: sample keys.

    Raises:
        ValueError: samples of several epochs.
    """
    if len(set(epochs)) != 1:
        raise ValueError(f"a micro-batch holds samples of epochs {sorted(set(epochs))}; masks need one epoch")
    size = sizes(config, grid, seed, epochs[0])
    blocks = config.target_blocks + 1
    draws, trims = [], []
    for epoch, key in zip(epochs, keys, strict=True):
        draw = generator("masks", seed, epoch, key)
        draws.append(torch.rand(TRIES, views, blocks, 2, generator=draw))
        trims.append(torch.rand(views, grid[0] * grid[1], generator=draw))
    corners = _choose_corners(torch.stack(draws, dim=1), grid, size)
    allowed = _context(corners, grid, size.target, size.context)
    order = torch.stack(trims).masked_fill_(~allowed, -1.0)  # what is not context comes last
    context = order.topk(size.keep, dim=-1).indices.sort(dim=-1).values
    return Masks(context, _targets(corners[..., :-1, :], grid, size.target))


def _choose_corners(uniform: Tensor, grid: tuple[int, int], size: Sizes) -> Tensor:
    """[TRIES, B, V, M+1, 2] uniform numbers -> corners [B, V, M+1, 2] of the first layout that keeps K."""
    chosen = _corners(uniform[0], grid, size.target, size.context)
    for attempt in range(1, len(uniform) + 1):
        short = _context(chosen, grid, size.target, size.context).sum(-1) < size.keep
        if not bool(short.any()):
            break
        if attempt < len(uniform):
            chosen[short] = _corners(uniform[attempt][short], grid, size.target, size.context)
        else:
            chosen[short] = size.fallback
    return chosen


def _block(grid: tuple[int, int], scale: float, aspect: float) -> tuple[int, int]:
    """(rows, columns) of a block of `scale` of the grid's area and height / width `aspect`."""
    area = scale * grid[0] * grid[1]
    rows, columns = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
    return min(max(rows, 1), grid[0]), min(max(columns, 1), grid[1])


def _corners(
    uniform: Tensor, grid: tuple[int, int], target: tuple[int, int], context: tuple[int, int]
) -> Tensor:
    """Uniform numbers [..., M+1, 2] -> top-left corners (row, column), the context block last."""
    room = torch.tensor([[grid[0] - h + 1, grid[1] - w + 1] for h, w in (target, context)])
    blocks = uniform.shape[-2]
    per_block = torch.cat([room[:1].expand(blocks - 1, 2), room[1:]])
    return torch.minimum((uniform * per_block).long(), per_block - 1)  # u may round up to 1


def _context(
    corners: Tensor, grid: tuple[int, int], target: tuple[int, int], context: tuple[int, int]
) -> Tensor:
    """Corners [..., M+1, 2] -> bool [..., P]: in the context block and in no target."""
    hidden = _covered(corners[..., :-1, :], grid, target).any(dim=-2)
    return _covered(corners[..., -1, :], grid, context) & ~hidden


def _covered(corners: Tensor, grid: tuple[int, int], block: tuple[int, int]) -> Tensor:
    """Corners [..., 2] -> bool [..., P]: the patches under a block."""
    row, column = torch.arange(grid[0]), torch.arange(grid[1])
    top, left = corners[..., :1], corners[..., 1:]
    rows = (row >= top) & (row < top + block[0])
    columns = (column >= left) & (column < left + block[1])
    return (rows[..., :, None] & columns[..., None, :]).flatten(-2)


def _targets(corners: Tensor, grid: tuple[int, int], block: tuple[int, int]) -> Tensor:
    """Corners [..., 2] -> int64 [..., N]: the patches under a block, row by row."""
    offsets = torch.arange(block[0])[:, None] * grid[1] + torch.arange(block[1])
    first = corners[..., 0] * grid[1] + corners[..., 1]
    return first[..., None] + offsets.flatten()


def _reference(
    config: MaskConfig,
    grid: tuple[int, int],
    target: tuple[int, int],
    context: tuple[int, int],
    draw: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Context counts [L] and corners [L, M+1, 2] of reference layouts."""
    uniform = torch.rand(REFERENCE_LAYOUTS, config.target_blocks + 1, 2, generator=draw)
    corners = _corners(uniform, grid, target, context)
    return _context(corners, grid, target, context).sum(-1), corners
