"""`examples/own_stage.py`: it learns, and run again with more steps it continues from its checkpoint."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def run(folder: Path, steps: int) -> list[dict[str, Any]]:
    """The metrics of the run in `folder` after the example ended."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT / "platform"), str(ROOT)))}
    command = [sys.executable, str(ROOT / "examples" / "own_stage.py"), str(folder), str(steps)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = (folder / "run" / "curves" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.slow
def test_own_stage_learns_and_continues(tmp_path: Path) -> None:
    first = run(tmp_path, 20)
    assert [line["step"] for line in first] == list(range(20))
    resumed = run(tmp_path, 30)
    assert [line["step"] for line in resumed] == list(range(30))
    assert resumed[:20] == first, "what was trained is not trained again"
    assert resumed[-1]["loss"] < 0.7 * resumed[0]["loss"]
