"""Rows of text and scene: what stands where, what is learned, who sees whom."""

from __future__ import annotations

import numpy as np
import pytest

from poma3d.llm.layout import Text, attention, lay_out


def text(prompt: list[int], scene_at: int, scene: int, answer: list[int]) -> Text:
    return Text(np.array(prompt, np.int64), scene_at, scene, np.array(answer, np.int64))


TEXTS = [text([11, 12, 13], 1, 2, [14, 15]), text([21], 1, 1, [22]), text([31, 32], 0, 0, [33])]


def test_a_row_holds_text_scene_text_answer() -> None:
    found = lay_out(TEXTS, scene_stride=2)
    assert found["layout/ids"].tolist() == [
        [11, 0, 0, 12, 13, 14, 15], [21, 0, 22, 0, 0, 0, 0], [31, 32, 33, 0, 0, 0, 0],
    ]  # fmt: skip
    assert found["layout/scene_at"].tolist() == [1, 2, 8]
    assert found["layout/scene_from"].tolist() == [0, 1, 2]
    assert found["layout/labels"].tolist() == [14, 15, 22, 33]
    assert found["layout/label_at"].tolist() == [4, 5, 8, 15]  # the place before
    assert found["layout/label_sample"].tolist() == [0, 0, 1, 2]
    assert attention(found["layout/sample"], packed=False).sum(dim=1).tolist() == [7, 3, 3]


def test_packed_rows_are_filled_first_fit_and_positions_begin_anew() -> None:
    found = lay_out(TEXTS, scene_stride=2, row_tokens=8)
    assert found["layout/sample"].tolist() == [[0] * 7 + [-1], [1] * 3 + [2] * 3 + [-1] * 2]
    assert found["layout/positions"].tolist() == [[0, 1, 2, 3, 4, 5, 6, 0], [0, 1, 2, 0, 1, 2, 0, 0]]
    ids = found["layout/ids"].flatten()
    own = {(int(s), int(ids[at + 1])) for s, at in
           zip(found["layout/label_sample"], found["layout/label_at"], strict=True)}  # fmt: skip
    assert own == {(0, 14), (0, 15), (1, 22), (2, 33)}
    sees = attention(found["layout/sample"], packed=True)
    assert sees.shape == (2, 1, 8, 8)
    assert sees[1, 0, 4].tolist() == [False] * 3 + [True] * 2 + [False] * 3
    with pytest.raises(ValueError, match="7 tokens does not fit in rows of 6"):
        lay_out(TEXTS, 2, 6)
