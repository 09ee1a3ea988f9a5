"""Texts against the features of scenes.

Legend: B scenes, V views, E joint space.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from poma3d.pretrained.config import AUTO, FGCLIP, TeacherConfig
from poma3d.pretrained.teacher import KINDS, Teacher, load_teacher


@dataclass(frozen=True)
class Provenance:
    """Where an encoder comes from."""

    teacher: str = ""
    """Name of the teacher whose text features are comparable."""
    teacher_revision: str = ""
    """Its revision."""
    logit_scale: float = 0.0
    """Logarithm of its temperature factor."""
    run: str = ""
    """The run, stage and step that gave the weights."""
    teacher_source: str = ""
    """Folder, storage URI or hub id where the teacher was when the encoder was exported."""
    teacher_kind: str = AUTO
    """Its kind, as in the job: `teacher.kind`."""
    weights: str = "target"
    """Which of a run's encoders: target (the moving average) or student (the trained encoder itself)."""


class Ranking(NamedTuple):
    """How well views and scenes fit a text; indices best first."""

    views: Tensor
    """int64 [B, V]: the views of each scene."""
    scenes: Tensor
    """int64 [B]: the scenes, by the mean of their views' features, as `poma evaluate` measures retrieval."""
    view_scores: Tensor
    """float32 [B, V]: cosines, in the views' own order."""
    scene_scores: Tensor
    """float32 [B]: cosines, in the scenes' own order."""


def rank(features: Tensor, text: Tensor) -> Ranking:
    """Views and scenes by their cosine with a text.

    Args:
        features: [B, V, E] unit vectors.
        text: [E] of the teacher's text tower.

    Raises:
        ValueError: another width.
    """
    if text.shape != features.shape[-1:]:
        raise ValueError(
            f"the text has features of {tuple(text.shape)}, the views of {features.shape[-1]}: give those of "
            "the teacher that the encoder learnt from"
        )
    text = F.normalize(text.to(features), dim=-1)
    views = features @ text
    scenes = F.normalize(features.mean(dim=1), dim=-1) @ text
    return Ranking(views.argsort(-1, descending=True), scenes.argsort(descending=True), views, scenes)


def open_teacher(provenance: Provenance, device: torch.device) -> Teacher:
    """The teacher that an export names.

    Raises:
        ValueError: the export names none, or one that cannot be opened here; says what to do.
    """
    source = provenance.teacher_source
    instead = (
        'give it with poma3d.export.load(folder, teacher="FOLDER"), or the text\'s features in place of it'
    )
    if not source:
        raise ValueError(f"this export does not say where its teacher is: export again, or {instead}")
    if provenance.teacher_kind not in KINDS:
        raise ValueError(
            f"the teacher is {provenance.teacher_kind}, a class of your own: give the text's features, "
            "encode_texts([text])[0]"
        )
    if "://" in source:
        raise ValueError(
            f"the teacher is at {source}, which is read by the platform alone: download it and {instead}"
        )
    if Path(source).is_absolute() and not Path(source).is_dir():
        raise ValueError(f"the teacher was in the folder {source}, which is not here: {instead}")
    config = TeacherConfig(source, provenance.teacher_revision or None, provenance.teacher_kind)
    return load_teacher(config, device)


def text_features(teacher: Teacher, text: str) -> np.ndarray:
    """Unit features float32 [E] of one text, in FG-CLIP's mode for long ones where it has that."""
    return teacher.encode_texts([text], long=teacher.kind == FGCLIP)[0].astype(np.float32)
