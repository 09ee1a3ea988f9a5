"""The vision transformer of CLIP and SigLIP image towers, in plain PyTorch with names of our own.

One module serves the teacher's image tower, the point-map encoder and (its blocks) the predictor, so
that patch tokens, pooled feature and a pass over a subset of tokens come from one call, exports need
no other library, and checkpoint names do not follow a library's refactorings. `poma3d.pretrained.teacher`
translates the published weights; a parity test holds it to transformers' own forward.

Every parameter is owned by a module that is called (never reached into), because ZeRO-3 gathers
parameters around a module's call.

Legend, also of the suffixes of tensors: n views, C channels, H W pixels, P patches (row by row), K kept
patches, T tokens of a pass, D width, E joint space, h attention heads, d width of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

QUICK_GELU_SLOPE = 1.702


def quick_gelu(x: Tensor) -> Tensor:
    """OpenAI CLIP's sigmoid approximation of GELU."""
    return x * torch.sigmoid(QUICK_GELU_SLOPE * x)


def _gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_pytorch_tanh": _gelu_tanh,
    "quick_gelu": quick_gelu,
}


@dataclass(frozen=True)
class VitShape:
    """Everything that fixes the module; `pooling` tells the families apart.

    "class" (CLIP): a class token, a norm before the blocks, the final norm and a linear projection on
    the class token. "attention" (SigLIP): no class token, a bias in the patch embedding, the final norm
    on all tokens, an attention-pooling head, no projection (E = D).
    """

    grid: tuple[int, int]
    patch: int
    channels: int
    width: int
    layers: int
    heads: int
    mlp_width: int
    activation: str
    norm_eps: float
    pooling: str
    joint: int

    @property
    def patches(self) -> int:
        """Number of patches, P."""
        return self.grid[0] * self.grid[1]

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.grid[0] * self.patch, self.grid[1] * self.patch

    def to_dict(self) -> dict[str, Any]:
        """For a JSON file; `from_dict` reads it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> VitShape:
        """The inverse of `to_dict`."""
        return cls(**{**values, "grid": tuple(values["grid"])})


@dataclass(frozen=True)
class ImageTower:
    """A teacher's image tower as data: what an encoder is initialised from."""

    shape: VitShape
    state: dict[str, Tensor]
    """Weights by the names of `VisionTransformer`, float32 on the CPU."""
    logit_scale: float
    """Logarithm of the teacher's temperature factor."""

    def on_grid(self, grid: tuple[int, int]) -> ImageTower:
        """The same tower for another number of patches: positions are interpolated bicubically."""
        if grid == self.shape.grid:
            return self
        position = self.state["embed.position"].T.reshape(1, self.shape.width, *self.shape.grid)
        resized = F.interpolate(position.float(), size=grid, mode="bicubic", align_corners=False)
        state = {**self.state, "embed.position": resized.reshape(self.shape.width, -1).T.contiguous()}
        return ImageTower(replace(self.shape, grid=grid), state, self.logit_scale)

    def build(self) -> VisionTransformer:
        """A module with these weights (copied)."""
        vit = self.build_empty()
        vit.load_state_dict(self.state)
        return vit

    def build_empty(self) -> VisionTransformer:
        """A module of this shape, uninitialised."""
        return VisionTransformer(self.shape)


class VitOutput(NamedTuple):
    """A named tuple, not a dataclass: ZeRO-3's hooks look for tensors in tuples."""

    pooled: Tensor
    """[n, E] in the joint space, not normalised."""
    tokens: Tensor
    """[n, P, D] patch tokens of the pass over all tokens."""
    kept: Tensor | None
    """[n, K, D] patch tokens of the pass over the kept patches alone; None when not asked for."""


class PatchEmbed(nn.Module):
    """Non-overlapping patches -> tokens, computed in float32 whatever the weights are.

    In bfloat16 a coordinate of 5 m is only known to 3 cm; a product in float32 costs less than a
    hundredth of the blocks and keeps the geometry.

    `gain` magnifies what varies inside a patch: mean + gain * (values - mean). 1 leaves it alone.
    """

    def __init__(self, shape: VitShape, gain: float = 1.0) -> None:
        super().__init__()
        self.patch = shape.patch
        self.gain = gain
        self.weight = nn.Parameter(torch.empty(shape.width, shape.channels, shape.patch, shape.patch))
        self.bias = nn.Parameter(torch.empty(shape.width)) if shape.pooling == "attention" else None

    def forward(self, pixels_nCHW: Tensor) -> Tensor:
        """[n, C, H, W] -> [n, P, D] in the dtype of the weights."""
        n, c, h, w = pixels_nCHW.shape
        p = self.patch
        grid = pixels_nCHW.float().reshape(n, c, h // p, p, w // p, p).permute(0, 2, 4, 1, 3, 5)
        patches = grid.reshape(n, (h // p) * (w // p), c, p * p)
        if self.gain != 1.0:
            mean = patches.mean(dim=-1, keepdim=True)
            patches = torch.lerp(mean, patches, self.gain)
        bias = None if self.bias is None else self.bias.float()
        return F.linear(patches.flatten(2), self.weight.flatten(1).float(), bias).to(self.weight.dtype)


class Embed(nn.Module):
    """Adds positions and, for CLIP, puts the class token first."""

    def __init__(self, shape: VitShape) -> None:
        super().__init__()
        has_class = shape.pooling == "class"
        self.position = nn.Parameter(torch.empty(shape.patches, shape.width))
        self.class_token = nn.Parameter(torch.empty(shape.width)) if has_class else None
        self.norm = nn.LayerNorm(shape.width, eps=shape.norm_eps) if has_class else nn.Identity()

    def forward(self, patches_nPD: Tensor) -> Tensor:
        """[n, P, D] -> [n, T, D]."""
        tokens_nTD = patches_nPD + self.position
        if self.class_token is not None:
            first_n1D = self.class_token.expand(len(tokens_nTD), 1, -1)
            tokens_nTD = torch.cat([first_n1D, tokens_nTD], dim=1)
        return self.norm(tokens_nTD)


class Attention(nn.Module):
    """Multi-head self-attention; q, k, v apart because LoRA adapts each of them."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.k = nn.Linear(width, width)
        self.v = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        # It adds the same to a query's product with every key, which softmax takes out again. Its gradient is
        # rounding noise, of which Adam would make steps of full length.
        self.k.bias.requires_grad_(False)

    def forward(self, x_nTD: Tensor) -> Tensor:
        """[n, T, D] -> [n, T, D]."""
        q_nhTd, k_nhTd, v_nhTd = (
            project(x_nTD).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for project in (self.q, self.k, self.v)
        )
        attended_nhTd = F.scaled_dot_product_attention(q_nhTd, k_nhTd, v_nhTd)
        return self.out(attended_nhTd.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two linear layers with an activation between them."""

    def __init__(self, width: int, mlp_width: int, activation: str) -> None:
        super().__init__()
        self.activation: Callable[[Tensor], Tensor] = ACTIVATIONS[activation]
        self.fc1 = nn.Linear(width, mlp_width)
        self.fc2 = nn.Linear(mlp_width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., D]."""
        return self.fc2(self.activation(self.fc1(x)))


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, width: int, heads: int, mlp_width: int, activation: str, norm_eps: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=norm_eps)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=norm_eps)
        self.mlp = Mlp(width, mlp_width, activation)

    def forward(self, x_nTD: Tensor) -> Tensor:
        """[n, T, D] -> [n, T, D]."""
        x_nTD = x_nTD + self.attn(self.norm1(x_nTD))
        return x_nTD + self.mlp(self.norm2(x_nTD))


class Blocks(nn.ModuleList):
    """Blocks in a row, whose activations are recomputed in the backward pass when `checkpointing`."""

    def __init__(self, blocks: list[Block], checkpointing: bool = False) -> None:
        super().__init__(blocks)
        self.checkpointing = checkpointing

    def forward(self, x_nTD: Tensor) -> Tensor:
        """[n, T, D] -> [n, T, D]."""
        for block in self:
            if self.checkpointing and torch.is_grad_enabled():
                x_nTD = checkpoint(block, x_nTD, use_reentrant=False)
            else:
                x_nTD = block(x_nTD)
        return x_nTD


class AttentionPool(nn.Module):
    """SigLIP's head: a learned query attends to all tokens, then a residual MLP."""

    def __init__(self, shape: VitShape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.probe = nn.Parameter(torch.empty(shape.width))
        self.q = nn.Linear(shape.width, shape.width)
        self.k = nn.Linear(shape.width, shape.width)
        self.v = nn.Linear(shape.width, shape.width)
        self.out = nn.Linear(shape.width, shape.width)
        self.k.bias.requires_grad_(False)  # as in `Attention`
        self.norm = nn.LayerNorm(shape.width, eps=shape.norm_eps)
        self.mlp = Mlp(shape.width, shape.mlp_width, shape.activation)

    def forward(self, tokens_nPD: Tensor) -> Tensor:
        """[n, P, D] -> [n, D]."""
        probe_n1D = self.probe.expand(len(tokens_nPD), 1, -1)
        q_nh1d, k_nhPd, v_nhPd = (
            project(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for project, x in ((self.q, probe_n1D), (self.k, tokens_nPD), (self.v, tokens_nPD))
        )
        attended_nh1d = F.scaled_dot_product_attention(q_nh1d, k_nhPd, v_nhPd)
        pooled_nD = self.out(attended_nh1d.transpose(1, 2).flatten(2))[:, 0]
        return pooled_nD + self.mlp(self.norm(pooled_nD))


class VisionTransformer(nn.Module):
    """The image tower. Its weights are uninitialised until a state is loaded."""

    def __init__(self, shape: VitShape, gain: float = 1.0, checkpointing: bool = False) -> None:
        super().__init__()
        self.shape = shape
        self.patch_embed = PatchEmbed(shape, gain)
        self.embed = Embed(shape)
        block = (shape.width, shape.heads, shape.mlp_width, shape.activation, shape.norm_eps)
        self.blocks = Blocks([Block(*block) for _ in range(shape.layers)], checkpointing)
        self.norm = nn.LayerNorm(shape.width, eps=shape.norm_eps)
        if shape.pooling == "class":
            self.head: nn.Module = nn.Linear(shape.width, shape.joint, bias=False)
        else:
            self.head = AttentionPool(shape)

    def forward(self, pixels_nCHW: Tensor, keep_nK: Tensor | None = None) -> VitOutput:
        """One pass over all patches and, with `keep`, a second one over those patches alone.

        Args:
            pixels_nCHW: floating, of the shape's size.
            keep_nK: int64 indices of patches. The class token, where there is one, is always kept.

        Raises:
            ValueError: pixels of another size, naming both.
        """
        expected = (self.shape.channels, *self.shape.image_size)
        found = tuple(pixels_nCHW.shape[1:])
        if found != expected:
            raise ValueError(f"the encoder takes views of {expected} (channels, height, width), got {found}")
        embedded_nTD = self.embed(self.patch_embed(pixels_nCHW))
        tokens_nTD = self._after_blocks(embedded_nTD)
        if self.shape.pooling == "class":
            pooled_nE, tokens_nPD = self.head(self.norm(tokens_nTD[:, 0])), tokens_nTD[:, 1:]
        else:
            pooled_nE, tokens_nPD = self.head(tokens_nTD), tokens_nTD
        kept_nKD = None if keep_nK is None else self._kept(embedded_nTD, keep_nK)
        return VitOutput(pooled_nE, tokens_nPD, kept_nKD)

    def _kept(self, embedded_nTD: Tensor, keep_nK: Tensor) -> Tensor:
        first = embedded_nTD.shape[1] - self.shape.patches
        chosen_nKD = take(embedded_nTD[:, first:], keep_nK)
        tokens_nTD = self._after_blocks(torch.cat([embedded_nTD[:, :first], chosen_nKD], dim=1))
        return tokens_nTD[:, first:]

    def _after_blocks(self, tokens_nTD: Tensor) -> Tensor:
        tokens_nTD = self.blocks(tokens_nTD)
        return tokens_nTD if self.shape.pooling == "class" else self.norm(tokens_nTD)


def take(tokens_nPD: Tensor, index_nK: Tensor) -> Tensor:
    """The tokens at the indices: [n, K, D]."""
    return tokens_nPD.gather(1, index_nK[..., None].expand(-1, -1, tokens_nPD.shape[-1]))
