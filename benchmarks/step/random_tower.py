"""An image tower with random weights, for benchmarks; from torch and poma3d alone."""

from __future__ import annotations

import torch

from poma3d.network.vit import ImageTower, VisionTransformer, VitShape

SEED, INIT_STD, LOGIT_SCALE = 0, 0.02, 4.6


def random_tower(vit: VitShape) -> ImageTower:
    """The same weights each time; it seeds torch."""
    torch.manual_seed(SEED)
    shapes = VisionTransformer(vit).state_dict()
    state = {name: torch.randn_like(weight) * INIT_STD for name, weight in shapes.items()}
    return ImageTower(vit, state, LOGIT_SCALE)
