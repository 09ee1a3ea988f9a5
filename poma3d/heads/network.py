"""The head of the authors' follow-up: pool views and words by attention, add, normalise, classify.

Legend: n samples, L views or words, D their width, G pooled width, Y hidden width, A answers.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from poma3d.heads.config import QUESTION, VIEWS, HeadConfig


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

    def forward(self, x_nLD: Tensor, valid_nL: Tensor) -> Pooled:
        """Pool; `valid` bool says which of the L count, at least one of each sample."""
        logits_nL = self.fc2(F.gelu(self.fc1(x_nLD))).squeeze(-1).float()
        weights_nL = logits_nL.masked_fill(~valid_nL, torch.finfo(torch.float32).min).softmax(dim=1)
        pooled_nD = (weights_nL.to(x_nLD.dtype)[..., None] * x_nLD).sum(dim=1)
        return Pooled(self.out(pooled_nD), weights_nL)


class Answered(NamedTuple):
    """What the head says of a batch."""

    logits: Tensor
    """[n, A]."""
    view_weights: Tensor
    """[n, V]: where it looked."""


class AnswerHead(nn.Module):
    """View features and word features -> a logit for each answer."""

    def __init__(self, config: HeadConfig, view_width: int, text_width: int, answers: int) -> None:
        super().__init__()
        self.views = (
            None
            if config.inputs == QUESTION
            else AttentionPool(view_width, config.pool_hidden, config.pool_width)
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
    ) -> Answered:
        """Logits of all answers.

        Args:
            words_nTD: None where the head sees no question.
            keep_nY: factors of the hidden layer, 0 for what is dropped; None in evaluation.
        """
        parts, weights = [], torch.zeros(view_valid_nV.shape, device=views_nVE.device)
        if self.views is not None:
            pooled = self.views(views_nVE, view_valid_nV)
            parts.append(pooled.features)
            weights = pooled.weights
        if self.words is not None and words_nTD is not None:
            parts.append(self.words(words_nTD, word_valid_nT).features)
        hidden_nY = F.gelu(self.fc1(self.norm(parts[0] if len(parts) == 1 else parts[0] + parts[1])))
        if keep_nY is not None:
            hidden_nY = hidden_nY * keep_nY.to(hidden_nY.dtype)
        return Answered(self.fc2(hidden_nY), weights)


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
