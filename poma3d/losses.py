"""The losses as pure functions, all in float32 whatever comes in.

Legend: R rows of a contrastive term, B scenes, N predictions and M targets of a scene, D width,
P patches.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

BLOCK_ELEMENTS = 2**22
"""Most distances that exist at a time in the nearest-neighbour search (16 MiB in float32)."""


def masked_nce(a: Tensor, b: Tensor, valid: Tensor, identity: Tensor) -> Tensor:
    """Symmetrical InfoNCE of a with b, in which row i of the one belongs to row i of the other.

    Args:
        a: [R, E] unit rows times the temperature factor.
        b: [R, E] unit rows.
        valid: bool [R]; the other rows are neither anchors nor negatives.
        identity: int64 [R, ...]; two rows of equal identity are the same thing twice, not negatives.

    Returns:
        Scalar: mean over the valid rows, 0 without any.
    """
    with torch.autocast(a.device.type, enabled=False):
        logits = a.float() @ b.float().T
    keys = identity.flatten(1) if identity.ndim > 1 else identity[:, None]
    same = (keys[:, None] == keys[None]).all(dim=-1)
    # The diagonal always stays, so that the row of an invalid pair is finite and can be weighted by 0.
    diagonal = torch.eye(len(a), dtype=torch.bool, device=a.device)
    left_out = (same | ~valid[None]) & ~diagonal
    positive = logits.diagonal()
    forth = logits.masked_fill(left_out, -torch.inf).logsumexp(dim=1) - positive
    back = logits.T.masked_fill(left_out, -torch.inf).logsumexp(dim=1) - positive
    return masked_mean(0.5 * (forth + back), valid)


def masked_mean(values: Tensor, valid: Tensor, dim: int | None = None) -> Tensor:
    """Mean of the values [...] where `valid` bool [...]; 0 where there are none."""
    weight = valid.to(values.dtype)
    kept = torch.where(valid, values, 0.0)
    if dim is None:
        return kept.sum() / weight.sum().clamp(min=1)
    return kept.sum(dim) / weight.sum(dim).clamp(min=1)


class Matches(NamedTuple):
    """Nearest neighbours, int64, among the valid ones."""

    of_prediction: Tensor
    """[B, N] index of the nearest target."""
    of_target: Tensor
    """[B, M] index of the nearest prediction."""


@torch.no_grad()
def nearest(
    predicted: Tensor,
    target: Tensor,
    predicted_valid: Tensor,
    target_valid: Tensor,
    block_elements: int = BLOCK_ELEMENTS,
) -> Matches:
    """Both directions of nearest neighbours by Euclidean distance, without the whole distance matrix.

    At most max(`block_elements`, M) distances exist at a time: scenes are taken in groups and their
    predictions in slices.

    Args:
        predicted: [B, N, D] float32.
        target: [B, M, D] float32.
        predicted_valid: bool [B, N].
        target_valid: bool [B, M].
        block_elements: the bound.
    """
    scenes, n, _ = predicted.shape
    m = target.shape[1]
    group = max(1, block_elements // (n * m))
    rows = max(1, min(n, block_elements // m))
    found = [
        _nearest_of_group(predicted[i], target[i], predicted_valid[i], target_valid[i], rows)
        for i in (slice(start, start + group) for start in range(0, scenes, group))
    ]
    return Matches(torch.cat([f[0] for f in found]), torch.cat([f[1] for f in found]))


def _nearest_of_group(
    predicted: Tensor, target: Tensor, predicted_valid: Tensor, target_valid: Tensor, rows: int
) -> tuple[Tensor, Tensor]:
    target_norm = target.square().sum(-1).masked_fill(~target_valid, torch.inf)[:, None, :]
    transposed = target.transpose(1, 2)
    of_prediction = []
    best = target.new_full(target.shape[:2], torch.inf)
    of_target = torch.zeros(target.shape[:2], dtype=torch.int64, device=target.device)
    for start in range(0, predicted.shape[1], rows):
        part = predicted[:, start : start + rows]
        # |x - y|^2 up to |x|^2, which does not change the nearest target of x ...
        distance = torch.baddbmm(target_norm, part, transposed, alpha=-2)
        of_prediction.append(distance.argmin(dim=2))
        # ... but does change the nearest prediction of y.
        norm = part.square().sum(-1).masked_fill(~predicted_valid[:, start : start + rows], torch.inf)
        closest, index = distance.add_(norm[..., None]).min(dim=1)
        of_target = torch.where(closest < best, index + start, of_target)
        best = torch.minimum(best, closest)
    return torch.cat(of_prediction, dim=1), of_target


def chamfer(
    predicted: Tensor,
    target: Tensor,
    predicted_valid: Tensor,
    target_valid: Tensor,
    block_elements: int = BLOCK_ELEMENTS,
) -> Tensor:
    """mean_i min_j |x_i - y_j|^2 + mean_j min_i |x_i - y_j|^2 for each scene.

    The derivative of a minimum is the derivative at the minimiser: only the indices are kept, and the
    distances to the matched rows are computed again, exactly (the search expands the square, which
    cancels). So neither pass holds anything larger than its inputs besides the search's block.

    Args:
        predicted, target, predicted_valid, target_valid, block_elements: as in `nearest`.

    Returns:
        Float32 [B], 0 for a scene without a valid row on both sides.
    """
    with torch.autocast(predicted.device.type, enabled=False):
        x, y = predicted.float(), target.float()
        matches = nearest(x.detach(), y.detach(), predicted_valid, target_valid, block_elements)
        width = x.shape[-1]
        y_of_x = y.gather(1, matches.of_prediction[..., None].expand(-1, -1, width))
        x_of_y = x.gather(1, matches.of_target[..., None].expand(-1, -1, width))
        forth = masked_mean((x - y_of_x).square().sum(-1), predicted_valid, dim=1)
        back = masked_mean((x_of_y - y).square().sum(-1), target_valid, dim=1)
        both = predicted_valid.any(dim=1) & target_valid.any(dim=1)
        return torch.where(both, forth + back, 0.0)


def positional(predicted: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Smooth L1 between rows of the same place (plain I-JEPA), summed over D.

    Args:
        predicted, target: [B, N, D].
        valid: bool [B, N].

    Returns:
        Float32 [B], mean over the valid rows.
    """
    per_row = F.smooth_l1_loss(predicted.float(), target.float(), reduction="none").sum(-1)
    return masked_mean(per_row, valid, dim=1)


def dense(student: Tensor, teacher: Tensor, valid: Tensor) -> Tensor:
    """Mean squared difference of layer-normed patch tokens.

    Args:
        student, teacher: [B, V, P, D]; layer-normed here, without affine.
        valid: bool [B, V].

    Returns:
        Float32 [B], mean over the valid views.
    """
    difference = layer_norm(student) - layer_norm(teacher)
    return masked_mean(difference.square().mean(dim=(-2, -1)), valid, dim=1)


def unit(rows: Tensor) -> Tensor:
    """Rows [..., E] of length 1, in float32."""
    return F.normalize(rows.float(), dim=-1)


def layer_norm(tokens: Tensor) -> Tensor:
    """Layer norm over D without affine, in float32."""
    return F.layer_norm(tokens.float(), tokens.shape[-1:])


def unique_match_rate(matches: Matches, predicted_valid: Tensor, targets: int) -> Tensor:
    """Distinct nearest targets / valid predictions, mean over scenes [scalar].

    1 when each prediction has a target of its own; near 0 when many share one, which is how the
    Chamfer distance is cheated.
    """
    hit = torch.zeros(len(predicted_valid), targets, device=predicted_valid.device)
    hit.scatter_reduce_(1, matches.of_prediction, predicted_valid.float(), reduce="amax")
    rate = hit.sum(1) / predicted_valid.sum(1).clamp(min=1)
    return masked_mean(rate, predicted_valid.any(dim=1))


def positional_ratio(predicted: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Squared error at the own place / variance of the targets, over all scenes (1: as their mean)."""
    weight = valid[..., None].float()
    x, y = predicted.float(), target.float()
    mean = (y * weight).sum((0, 1)) / weight.sum().clamp(min=1)
    error = ((x - y).square() * weight).sum()
    return error / ((y - mean).square() * weight).sum().clamp(min=torch.finfo(torch.float32).tiny)


def effective_rank(features: Tensor) -> Tensor:
    """exp of the entropy of the normalised singular values of centred features [R, D]: 1 when collapsed."""
    centred = features.float() - features.float().mean(0)
    singular = torch.linalg.svdvals(centred)
    share = singular / singular.sum().clamp(min=torch.finfo(torch.float32).tiny)
    return torch.special.entr(share).sum().exp()
