"""Annotations of each kind as conversations: texts, answers, and where somebody stands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from jobs.finetune.llm.config import ConversationsConfig
from jobs.finetune.llm.conversations import read
from plinth.errors import ConfigError
from plinth.storage import StorageOptions
from poma3d.llm.conversations import Conversation
from tests.helpers.annotations import layouts

WHERE = "train.conversations[0]"


def of(kind: str, *files: Path, **changes: str | None) -> list[Conversation]:
    config = ConversationsConfig(kind, [str(file) for file in files], **changes)  # type: ignore[arg-type]
    return read(config, " ", None, StorageOptions(), WHERE)


def test_scanqa_has_several_answers_and_no_pose(tmp_path: Path) -> None:
    file = layouts.write_json(
        tmp_path / "ScanQA_v1.0_val.json", [layouts.scanqa_row(0, "brown", "dark brown")]
    )
    (found,) = of("scanqa", file)
    assert found.texts == ("What color is the chair?",)
    assert found.answers == ("brown", "dark brown")
    assert found.agent is None
    assert found.sample_id == "scanqa/scene0000_00/val-scene0000-0"


def test_hypo3d_says_what_changed_before_it_asks(tmp_path: Path) -> None:
    (found,) = of("hypo3d", *layouts.hypo3d_converted(tmp_path))
    assert found.texts[0] == (
        "The desk was located at the front of the scene. The lamp was moved. Where is the lamp?"
    )
    assert found.answers == ("back left",)


def test_msnn_stands_where_the_file_says(tmp_path: Path) -> None:
    sample = layouts.msnn_sample([1, "turn left"], [1, "turn to forward left"])
    file = layouts.write_json(tmp_path / "msnn_scannet.json", {"scene0000_00": {"0": sample}})
    (found,) = of("msnn", file)
    assert found.agent is not None
    np.testing.assert_allclose(found.agent @ [1.0, 2.0, 0.5, 1.0], np.zeros(3), atol=1e-6)
    ahead = np.array([1 + np.cos(0.5), 2 + np.sin(0.5), 0.5, 1.0])  # it faces +x, turned by half a radian
    np.testing.assert_allclose(found.agent @ ahead, [1.0, 0.0, 0.0], atol=1e-6)
    assert "I want to reach the bed." in found.texts[0]


def test_sqa3d_needs_its_scans_for_a_pose(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = layouts.sqa3d(tmp_path, rows=2)
    assert all(each.agent is None for each in of("sqa3d", *files))
    assert f"{WHERE}: 2 of 2 questions have a pose that cannot be brought" in capsys.readouterr().out
    points = np.array([[0, 0, 0], [2, 2, 2]], np.float64)
    layouts.write_scan(tmp_path / "scans", "scene0000_00", None, points)
    first, second = of("sqa3d", *files, scans=str(tmp_path / "scans"))
    assert first.agent is not None
    assert second.agent is None  # of another scene, whose scan is not there
    assert len(first.texts) > 1
    with pytest.raises(ConfigError, match="no such folder of scans"):
        of("sqa3d", *files, scans=str(tmp_path / "nowhere"))
