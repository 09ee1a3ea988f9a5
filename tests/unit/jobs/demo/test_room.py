"""The room of the demo's report: the first with captions, its texts ranked by the encoder's features."""

from __future__ import annotations

import json
import re

import numpy as np

from jobs.demo.room import room_page
from jobs.evaluate.measure import MODEL, Features
from poma3d.pretrained.config import CLIP
from tests.helpers.view.scenes import sample


class Teacher:
    """Texts as unit vectors along the axis that their last figure names."""

    kind = CLIP

    def encode_texts(self, texts: list[str], long: bool = False) -> np.ndarray:
        return np.eye(4, dtype=np.float16)[[int(text[-1]) for text in texts]]


def test_the_first_room_with_captions_and_three_of_its_texts() -> None:
    captions = [["a wall", f"wall {v}"] for v in range(4)]
    silent, speaking = sample("silent", view_captions=[[]] * 4), sample("speaking", view_captions=captions)
    views = np.stack([np.eye(4), np.eye(4)[[1, 0, 3, 2]]]).astype(np.float32)
    features = Features({MODEL: views}, np.ones((2, 4)))
    page, still = room_page([silent, speaking], features, Teacher())  # type: ignore[arg-type]
    assert "<h1>speaking</h1>" in page
    assert still is not None
    shown = still[still[..., 3] > 0]
    assert len(shown) > still.size / 4 / 10, "the room fills some of it, the rest is the page's own colour"
    assert len(np.unique(shown // 16, axis=0)) > 5
    data = json.loads(re.findall(r'application/json">(.*?)</script>', page)[0])
    assert [each["text"] for each in data["rankings"]] == ["wall 0", "wall 2", "wall 3"]
    assert [each["right"] for each in data["rankings"]] == [0, 2, 3]
    assert [np.argmax(each["values"]) for each in data["rankings"]] == [1, 3, 2]
    assert room_page([silent], features, Teacher()) == ("", None)  # type: ignore[arg-type]
