"""What a head says of a scene, and what each view does for it.

Legend: n questions, k choices of views, V views, K patches of all views, M cells, A answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from jobs.ask.head import Opened
from jobs.ask.scene import AskedScene
from jobs.finetune.scenes import VALID
from poma3d.heads.questions import SCENE
from poma3d.heads.stage import SITUATION, QuestionStage
from poma3d.seen.config import VOXELS
from poma3d.seen.scenes import AGENT, CELLS

CHOICES_AT_ONCE = 8
"""Choices of a scene's views whose patches are in memory together."""


@dataclass(frozen=True)
class Said:
    """What a head says of a scene, per question."""

    logits: np.ndarray
    """float32 [n, A]."""
    attention: np.ndarray
    """float32 [n, V], sum 1 over valid views, 0 for repeats. A cell's weight is shared among the views that
    see it."""
    without: np.ndarray
    """float32 [n, V]: how much the best answer's logit changes when the view is left out; 0 for repeats, and
    NaN where it is the only one."""
    cut: int
    """How many of the questions were longer than the tower allows."""
    limit: int
    """Tokens that it allows."""
    unknown: int
    """How many words of the questions the tower does not know."""


class _Choices:
    """The scene that is asked about as `poma3d.seen.scenes.Scenes`: number i is the scene with the i-th
    choice of its views."""

    def __init__(self, content: Mapping[str, np.ndarray], left_kV: np.ndarray) -> None:
        self._content, self._left = content, left_kV

    def read(self, numbers: Sequence[int]) -> dict[str, np.ndarray]:
        copies = {name: np.stack([each] * len(numbers)) for name, each in self._content.items()}
        return {**copies, VALID: self._left[list(numbers)]}

    def read_ahead(self, numbers: Sequence[int]) -> None:
        """It is at hand."""


@torch.no_grad()
def ask(opened: Opened, scene: AskedScene, texts: Sequence[str], agent: np.ndarray | None = None) -> Said:
    """What the head says to each text, and what each view of the scene does for it.

    Args:
        texts: questions with their situations before them.
        agent: float32 [3, 4], world -> whoever asks; unit when None.
    """
    words, stage = opened.words, opened.stage
    tokens, cut = words.encode(texts)
    valid_V = torch.from_numpy(scene.view_valid.astype(bool))
    views = valid_V.nonzero().squeeze(1)
    left_kV = valid_V.repeat(len(views) + 1, 1)  # all of them, then each but one
    left_kV[torch.arange(len(views)) + 1, views] = False
    if len(views) == 1:
        left_kV = left_kV[:1]
    logits, attention, without = [], [], []
    for each in tokens:
        all_kA, weights_V = _answered(stage, scene, left_kV, each, agent)
        logits_kA = all_kA[:, : len(opened.answers.texts)]  # never the impossible class
        change_V = torch.zeros(len(valid_V))
        change_V[views] = torch.nan
        if len(views) > 1:
            best = int(logits_kA[0].argmax())
            change_V[views] = (logits_kA[1:, best] - logits_kA[0, best]).float().cpu()
        logits.append(logits_kA[0].float().cpu().numpy())
        attention.append(weights_V.numpy())
        without.append(change_V.numpy())
    unknown = sum(words.unknown(each) for each in tokens)
    return Said(np.stack(logits), np.stack(attention), np.stack(without), cut, words.limit, unknown)


def _answered(
    stage: QuestionStage,
    scene: AskedScene,
    left_kV: torch.Tensor,
    tokens: Sequence[int],
    agent: np.ndarray | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The logits [k, A] of one question of one scene with several choices of its views, and, with the first
    of them, the weight of each view float32 [V]."""
    device, rows = stage.head.norm.weight.device, len(left_kV)
    batch = {
        "tokens": torch.tensor(tokens, dtype=torch.int32).expand(rows, 1, -1),
        "token_count": torch.full((rows, 1), len(tokens), dtype=torch.int32),
        "text_count": torch.ones(rows, dtype=torch.int32),
    }
    is_of_cells = stage.seen is not None and stage.seen.config.tokens == VOXELS
    if not is_of_cells:
        views_VE = torch.from_numpy(np.array(scene.content["views"]))
        batch |= {"views": views_VE.expand(rows, -1, -1), "view_valid": left_kV}
        chosen = torch.zeros(rows, dtype=torch.long, device=device)
        answered = stage.answer({name: each.to(device) for name, each in batch.items()}, chosen)
        return answered.logits, (answered.view_weights[0].cpu() * left_kV[0]).float()
    assert stage.seen is not None
    stage.seen.scenes = _Choices(scene.content, left_kV.numpy())
    pose = torch.eye(3, 4) if agent is None else torch.from_numpy(agent)
    batch |= {SCENE: torch.arange(rows, dtype=torch.int32), AGENT: pose.expand(rows, -1, -1)}
    found: list[torch.Tensor] = []
    for start in range(0, rows, CHOICES_AT_ONCE):
        some = {name: each[start : start + CHOICES_AT_ONCE] for name, each in batch.items()}
        prepared = stage.prepare(some)
        moved = {name: each.to(device) for name, each in prepared.items()}
        answered = stage.answer(stage.encoded(moved), moved[SITUATION])
        if not found:
            weights_V = _of_views(
                answered.view_weights[0].float().cpu(), prepared[CELLS][0], left_kV.shape[1]
            )
        found.append(answered.logits)
    return torch.cat(found), weights_V


def _of_views(weights_M: torch.Tensor, cell_K: torch.Tensor, views: int) -> torch.Tensor:
    """The weight of each view float32 [V]: each cell's is shared equally among its patches."""
    found = cell_K >= 0
    patches_M = torch.bincount(cell_K[found], minlength=len(weights_M))
    share_K = torch.zeros(len(cell_K))
    share_K[found] = (weights_M / patches_M.clamp(min=1))[cell_K[found]]
    return share_K.view(views, -1).sum(dim=1)
