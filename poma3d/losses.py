"""The losses as pure functions, all in float32 whatever comes in.

Legend, also of the suffixes of tensors: R rows of a contrastive term, E joint space, B scenes, V views, N
predictions and M targets of a scene, S a slice of the predictions, D width, P patches.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

BLOCK_ELEMENTS = 2**22
"""Most distances that exist at a time in the nearest-neighbour search (16 MiB in float32)."""


def masked_nce(a_RE: Tensor, b_RE: Tensor, valid_R: Tensor, identity: Tensor) -> Tensor:
    """Symmetrical InfoNCE of a with b, in which row i of the one belongs to row i of the other.

    Args:
        a_RE: unit rows times the temperature factor.
        b_RE: unit rows.
        valid_R: bool; the other rows are neither anchors nor negatives.
        identity: int64 [R, ...]; two rows of equal identity are the same thing twice, not negatives.

    Returns:
        Scalar: mean over the valid rows, 0 without any.
    """
    with torch.autocast(a_RE.device.type, enabled=False):
        logits_RR = a_RE.float() @ b_RE.float().T
    keys = identity.flatten(1) if identity.ndim > 1 else identity[:, None]
    same_RR = (keys[:, None] == keys[None]).all(dim=-1)
    # The diagonal always stays, so that the row of an invalid pair is finite and can be weighted by 0.
    diagonal_RR = torch.eye(len(a_RE), dtype=torch.bool, device=a_RE.device)
    left_out_RR = (same_RR | ~valid_R[None]) & ~diagonal_RR
    positive_R = logits_RR.diagonal()
    forth_R = logits_RR.masked_fill(left_out_RR, -torch.inf).logsumexp(dim=1) - positive_R
    back_R = logits_RR.T.masked_fill(left_out_RR, -torch.inf).logsumexp(dim=1) - positive_R
    return masked_mean(0.5 * (forth_R + back_R), valid_R)


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
    predicted_BND: Tensor,
    target_BMD: Tensor,
    valid_BN: Tensor,
    valid_BM: Tensor,
    block_elements: int = BLOCK_ELEMENTS,
) -> Matches:
    """Both directions of nearest neighbours by Euclidean distance, without the whole distance matrix.

    At most max(`block_elements`, M) distances exist at a time: scenes are taken in groups and their
    predictions in slices.

    Args:
        predicted_BND, target_BMD: float32.
        valid_BN, valid_BM: bool, which of the predictions and of the targets count.
        block_elements: the bound.
    """
    scenes, n, _ = predicted_BND.shape
    m = target_BMD.shape[1]
    group = max(1, block_elements // (n * m))
    rows = max(1, min(n, block_elements // m))
    found = [
        _nearest_of_group(predicted_BND[i], target_BMD[i], valid_BN[i], valid_BM[i], rows)
        for i in (slice(start, start + group) for start in range(0, scenes, group))
    ]
    return Matches(torch.cat([f[0] for f in found]), torch.cat([f[1] for f in found]))


def _nearest_of_group(
    predicted_BND: Tensor, target_BMD: Tensor, valid_BN: Tensor, valid_BM: Tensor, rows: int
) -> tuple[Tensor, Tensor]:
    norm_B1M = target_BMD.square().sum(-1).masked_fill(~valid_BM, torch.inf)[:, None, :]
    target_BDM = target_BMD.transpose(1, 2)
    of_prediction = []
    best_BM = target_BMD.new_full(target_BMD.shape[:2], torch.inf)
    of_target_BM = torch.zeros(target_BMD.shape[:2], dtype=torch.int64, device=target_BMD.device)
    for start in range(0, predicted_BND.shape[1], rows):
        part_BSD = predicted_BND[:, start : start + rows]
        # |x - y|^2 up to |x|^2, which does not change the nearest target of x ...
        distance_BSM = torch.baddbmm(norm_B1M, part_BSD, target_BDM, alpha=-2)
        of_prediction.append(distance_BSM.argmin(dim=2))
        # ... but does change the nearest prediction of y.
        norm_BS = part_BSD.square().sum(-1).masked_fill(~valid_BN[:, start : start + rows], torch.inf)
        closest_BM, index_BM = distance_BSM.add_(norm_BS[..., None]).min(dim=1)
        of_target_BM = torch.where(closest_BM < best_BM, index_BM + start, of_target_BM)
        best_BM = torch.minimum(best_BM, closest_BM)
    return torch.cat(of_prediction, dim=1), of_target_BM


def chamfer(
    predicted_BND: Tensor,
    target_BMD: Tensor,
    valid_BN: Tensor,
    valid_BM: Tensor,
    block_elements: int = BLOCK_ELEMENTS,
) -> Tensor:
    """mean_i min_j |x_i - y_j|^2 + mean_j min_i |x_i - y_j|^2 for each scene.

    The derivative of a minimum is the derivative at the minimiser: only the indices are kept, and the
    distances to the matched rows are computed again, exactly (the search expands the square, which
    cancels). So neither pass holds anything larger than its inputs besides the search's block.

    Args:
        predicted_BND, target_BMD, valid_BN, valid_BM, block_elements: as in `nearest`.

    Returns:
        Float32 [B], 0 for a scene without a valid row on both sides.
    """
    with torch.autocast(predicted_BND.device.type, enabled=False):
        x_BND, y_BMD = predicted_BND.float(), target_BMD.float()
        matches = nearest(x_BND.detach(), y_BMD.detach(), valid_BN, valid_BM, block_elements)
        width = x_BND.shape[-1]
        y_of_x_BND = y_BMD.gather(1, matches.of_prediction[..., None].expand(-1, -1, width))
        x_of_y_BMD = x_BND.gather(1, matches.of_target[..., None].expand(-1, -1, width))
        forth_B = masked_mean((x_BND - y_of_x_BND).square().sum(-1), valid_BN, dim=1)
        back_B = masked_mean((x_of_y_BMD - y_BMD).square().sum(-1), valid_BM, dim=1)
        both_B = valid_BN.any(dim=1) & valid_BM.any(dim=1)
        return torch.where(both_B, forth_B + back_B, 0.0)


def positional(predicted_BND: Tensor, target_BND: Tensor, valid_BN: Tensor) -> Tensor:
    """Smooth L1 between rows of the same place (plain I-JEPA), summed over D: float32 [B], mean over the
    valid rows."""
    row_BN = F.smooth_l1_loss(predicted_BND.float(), target_BND.float(), reduction="none").sum(-1)
    return masked_mean(row_BN, valid_BN, dim=1)


def dense(student_BVPD: Tensor, teacher_BVPD: Tensor, valid_BV: Tensor) -> Tensor:
    """Mean squared difference of patch tokens, layer-normed here without affine: float32 [B], mean over the
    valid views."""
    difference_BVPD = layer_norm(student_BVPD) - layer_norm(teacher_BVPD)
    return masked_mean(difference_BVPD.square().mean(dim=(-2, -1)), valid_BV, dim=1)


def unit(rows: Tensor) -> Tensor:
    """Rows [..., E] of length 1, in float32."""
    return F.normalize(rows.float(), dim=-1)


def layer_norm(tokens: Tensor) -> Tensor:
    """Layer norm over D without affine, in float32."""
    return F.layer_norm(tokens.float(), tokens.shape[-1:])


def unique_match_rate(matches: Matches, valid_BN: Tensor, targets: int) -> Tensor:
    """Distinct nearest targets / valid predictions, mean over scenes [scalar].

    1 when each prediction has a target of its own; near 0 when many share one, which is how the
    Chamfer distance is cheated.
    """
    hit_BM = torch.zeros(len(valid_BN), targets, device=valid_BN.device)
    hit_BM.scatter_reduce_(1, matches.of_prediction, valid_BN.float(), reduce="amax")
    rate_B = hit_BM.sum(1) / valid_BN.sum(1).clamp(min=1)
    return masked_mean(rate_B, valid_BN.any(dim=1))


def positional_ratio(predicted_BND: Tensor, target_BND: Tensor, valid_BN: Tensor) -> Tensor:
    """Squared error at the own place / variance of the targets, over all scenes (1: as their mean)."""
    weight_BN1 = valid_BN[..., None].float()
    x_BND, y_BND = predicted_BND.float(), target_BND.float()
    mean_D = (y_BND * weight_BN1).sum((0, 1)) / weight_BN1.sum().clamp(min=1)
    error = ((x_BND - y_BND).square() * weight_BN1).sum()
    variance = ((y_BND - mean_D).square() * weight_BN1).sum()
    return error / variance.clamp(min=torch.finfo(torch.float32).tiny)


def effective_rank(features_RD: Tensor) -> Tensor:
    """exp of the entropy of the normalised singular values of centred features: 1 when collapsed, NaN where a
    feature is not finite."""
    rows_RD = features_RD.double()
    centred_RD = rows_RD - rows_RD.mean(0)
    # By way of the D x D products, which takes less time than svdvals; hence float64.
    products_DD = centred_RD.T @ centred_RD
    is_finite = products_DD.isfinite().all()  # eigvalsh would raise, before the guards can say what is wrong
    squares_D = torch.linalg.eigvalsh(products_DD.where(is_finite, 0.0)).clamp(min=0)
    share_D = squares_D.sqrt() / squares_D.sqrt().sum().clamp(min=torch.finfo(torch.float64).tiny)
    return torch.special.entr(share_D).sum().exp().where(is_finite, torch.nan).float()
