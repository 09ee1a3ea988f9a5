"""Pictures of point maps and their masks, uint8 RGB.

Legend: V views, H W pixels, L patches to show.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

LOW, HIGH = 0.02, 0.98
"""Quantiles of each coordinate that become black and full colour."""
GAP = 2
"""Pixels between views."""
HIDDEN = 40
"""Grey level of what is not shown."""
MAX_VIEWS = 8
"""Views in a row; the first of them."""
QUANTILE_POINTS = 100_000
"""Points that the quantiles are read from (torch.quantile has a limit)."""


def colour_points(points: Tensor) -> np.ndarray:
    """Point maps [V, H, W, 3] in metres -> uint8 [V, H, W, 3]: x red, y green, z blue, no depth black."""
    points = points.detach().float().cpu()[:MAX_VIEWS]
    valid = (points != 0).any(dim=-1)
    seen = points[valid]
    if len(seen) == 0:
        return np.zeros(points.shape, np.uint8)
    seen = seen[:: max(1, len(seen) // QUANTILE_POINTS)]
    low, high = torch.quantile(seen, torch.tensor([LOW, HIGH]), dim=0)
    scaled = ((points - low) / (high - low).clamp(min=1e-6)).clamp(0, 1)
    return (torch.where(valid[..., None], scaled, 0.0) * 255).round().to(torch.uint8).numpy()


def keep_patches(views: np.ndarray, index: Tensor, grid: tuple[int, int]) -> np.ndarray:
    """Views uint8 [V, H, W, 3] with everything grey but the patches `index` [V, L]."""
    shown = torch.zeros(len(views), grid[0] * grid[1], dtype=torch.bool)
    shown.scatter_(1, index[: len(views)], True)
    height, width = views.shape[1] // grid[0], views.shape[2] // grid[1]
    mask = np.kron(shown.reshape(-1, *grid).numpy(), np.ones((1, height, width), bool))
    return np.where(mask[..., None], views, np.uint8(HIDDEN))


def sheet(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Rows of views uint8 [V, H, W, 3] -> one picture uint8, a row of views above the other."""
    return np.concatenate([np.concatenate([_framed(view) for view in row], axis=1) for row in rows], axis=0)


def _framed(view: np.ndarray) -> np.ndarray:
    return np.pad(view, ((0, GAP), (0, GAP), (0, 0)), constant_values=255)
