"""The head of the authors' follow-up: pool views and words by attention, add, normalise, classify.

Ours beside theirs: the question may guide where the head looks, and in place of views it may see cells of
space, each with its position.

Legend: n samples, L views, cells or words, V views or cells, D their width, H width of the layer that weighs
them, G pooled width, Y hidden width, A answers.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from poma3d.heads.config import GUIDED, QUESTION, VIEWS, HeadConfig


class Pooled(NamedTuple):
    """What attention pooling gives."""

    features: Tensor
    """[n, G]."""
    weights: Tensor
    """[n, L], sum 1 over what is valid."""


class AttentionPool(nn.Module):
    """A weighted mean of views or words with one glimpse, brought to another width."""

    def __init__(self, width: int, hidden: int, out: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        # No bias: softmax takes it out again, and its gradient would be rounding that Adam makes steps of.
        self.fc2 = nn.Linear(hidden, 1, bias=False)
        self.out = nn.Linear(width, out)

    def forward(self, x_nLD: Tensor, valid_nL: Tensor, guide_nH: Tensor | None = None) -> Pooled:
        """Pool.

        Args:
            valid_nL: bool, which of the L count; of a sample without any, all weigh the same.
            guide_nH: what is looked for.
        """
        hidden_nLH = self.fc1(x_nLD)
        if guide_nH is not None:
            hidden_nLH = hidden_nLH + guide_nH[:, None]
        logits_nL = self.fc2(F.gelu(hidden_nLH)).squeeze(-1).float()
        weights_nL = logits_nL.masked_fill(~valid_nL, torch.finfo(torch.float32).min).softmax(dim=1)
        pooled_nD = (weights_nL.to(x_nLD.dtype)[..., None] * x_nLD).sum(dim=1)
        return Pooled(self.out(pooled_nD), weights_nL)


class Answered(NamedTuple):
    """What the head says of a batch."""

    logits: Tensor
    """[n, A]."""
    view_weights: Tensor
    """[n, V]: where it looked, sum 1 over what is valid."""


class AnswerHead(nn.Module):
    """View features and word features -> a logit for each answer."""

    def __init__(
        self, config: HeadConfig, view_width: int, text_width: int, answers: int, place_width: int = 0
    ) -> None:
        """With new weights.

        Args:
            place_width: of the positions of cells, which are seen in place of views; 0 for views.
        """
        super().__init__()
        self.views = (
            None
            if config.inputs == QUESTION
            else AttentionPool(view_width + place_width, config.pool_hidden, config.pool_width)
        )
        # Patch tokens have no scale of their own, and stand beside positions that have one.
        self.cell_norm = nn.LayerNorm(view_width) if place_width and self.views is not None else None
        # No bias: that of the layer it is added to is enough.
        self.guide = (
            nn.Linear(config.pool_width, config.pool_hidden, bias=False)
            if config.attention == GUIDED
            else None
        )
        self.words = (
            None
            if config.inputs == VIEWS
            else AttentionPool(text_width, config.pool_hidden, config.pool_width)
        )
        self.norm = nn.LayerNorm(config.pool_width)
        self.fc1 = nn.Linear(config.pool_width, config.hidden)
        self.fc2 = nn.Linear(config.hidden, answers)

    def forward(
        self,
        views_nVE: Tensor,
        view_valid_nV: Tensor,
        words_nTD: Tensor | None,
        word_valid_nT: Tensor,
        keep_nY: Tensor | None = None,
        places_nVD: Tensor | None = None,
    ) -> Answered:
        """Logits of all answers.

        Args:
            words_nTD: None where the head sees no question.
            keep_nY: factors of the hidden layer, 0 for what is dropped; None in evaluation.
            places_nVD: positions of cells, which are seen in place of views.
        """
        parts, weights = [], torch.zeros(view_valid_nV.shape, device=views_nVE.device)
        asked_nG = None
        if self.words is not None and words_nTD is not None:
            asked_nG = self.words(words_nTD, word_valid_nT).features
        if self.views is not None:
            guide_nH = None if self.guide is None or asked_nG is None else self.guide(asked_nG)
            pooled = self.views(self._seen(views_nVE, places_nVD), view_valid_nV, guide_nH)
            parts.append(pooled.features)
            weights = pooled.weights
        if asked_nG is not None:
            parts.append(asked_nG)
        hidden_nY = F.gelu(self.fc1(self.norm(parts[0] if len(parts) == 1 else parts[0] + parts[1])))
        if keep_nY is not None:
            hidden_nY = hidden_nY * keep_nY.to(hidden_nY.dtype)
        return Answered(self.fc2(hidden_nY), weights)

    def _seen(self, views_nVE: Tensor, places_nVD: Tensor | None) -> Tensor:
        if self.cell_norm is None or places_nVD is None:
            return views_nVE
        return torch.cat([self.cell_norm(views_nVE), places_nVD.to(views_nVE.dtype)], dim=-1)


def answer_loss(logits_nA: Tensor, targets_nA: Tensor) -> Tensor:
    """Binary cross-entropy summed over the answers [n], in fp32; the batch's loss is its mean over
    samples."""
    return F.binary_cross_entropy_with_logits(logits_nA.float(), targets_nA.float(), reduction="none").sum(
        dim=1
    )


def multi_hot(answers_nK: Tensor, classes: int) -> Tensor:
    """Targets float32 [n, classes] of answer indices [n, K]; -1 stands for none, repeats count once."""
    targets = torch.zeros(len(answers_nK), classes + 1, device=answers_nK.device)
    targets.scatter_(1, answers_nK.long().where(answers_nK >= 0, classes), 1.0)
    return targets[:, :classes]
