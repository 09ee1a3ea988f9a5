"""Texts through a teacher, with what it cut counted."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np

from poma3d.pretrained.teacher import Teacher


def encode_texts(teacher: Teacher, texts: Sequence[str], long: bool = False) -> np.ndarray:
    """Unit features float32 [n, E]; texts longer than the text tower are cut, and a warning counts them.

    Args:
        long: FG-CLIP's mode for long captions.
    """
    cut = cut_texts(teacher, texts, long)
    if cut:
        print(
            f"warning: {len(cut)} of {len(texts)} texts are longer than the teacher's text tower and are "
            f"cut; the first is text {cut[0]}",
            file=sys.stderr,
        )
    return teacher.encode_texts(texts, long=long).astype(np.float32)


def cut_texts(teacher: Teacher, texts: Sequence[str], long: bool = False) -> list[int]:
    """Places of the texts that are too long; none where a teacher of one's own cannot say."""
    counts = getattr(teacher, "longer_texts", None)
    return list(counts(texts, long)) if counts else []
