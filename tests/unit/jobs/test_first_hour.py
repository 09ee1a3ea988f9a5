"""From own scans to a text query by the commands that the documentation gives, none of them refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import poma3d.export
from jobs.cli import main
from plinth.observe.step_lines import read_lines
from plinth.storage import Storage
from tests.helpers.docs import first_hour
from tests.helpers.docs.recorded import recorded
from tests.helpers.tiny_jobs import SIDE, TEACHER

pytestmark = pytest.mark.slow

MOST_COMMANDS = 6
"""With the Python that asks the encoder."""
FRAMES, STEPS = 32, 2
SIZES = {
    first_hour.INGEST: [f"shape.height={SIDE}", f"shape.width={SIDE}"],
    first_hour.PRETRAIN: [
        f"main.steps={STEPS}", "main.warmup_steps=1", "model.masks.min_context=2",
        "model.predictor={layers: 1, width: 16, heads: 2}",
    ],
}  # fmt: skip


def test_own_scans_to_a_text_query_without_a_refused_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scans = first_hour.make_scans(tmp_path / "my scans", 40, FRAMES)
    monkeypatch.chdir(tmp_path)
    commands = first_hour.commands(scans, first_hour.make_teacher(tmp_path, TEACHER), SIZES)
    assert list(commands) == ["detect", "ingest", "embed", "pretrain", "export"]
    assert len(commands) + 1 <= MOST_COMMANDS
    for words in commands.values():
        assert main(words) == 0, capsys.readouterr().err
    lines = read_lines(Storage.from_uri(first_hour.RUN).child("main"))
    assert [line["step"] for line in lines] == list(range(STEPS))

    encoder = poma3d.export.load(first_hour.ENCODER)
    views = encoder.from_frames(*recorded(scans / "room-0", 8))
    ranking = encoder.rank(views, first_hour.QUERY)
    assert sorted(ranking.views[0].tolist()) == list(range(8))
    assert np.isfinite(ranking.view_scores.numpy()).all()
    said = capsys.readouterr()
    assert "Traceback" not in said.err + said.out
