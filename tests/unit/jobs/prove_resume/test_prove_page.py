"""The page and the table of `poma prove-resume`."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from jobs.pretrain.config import PretrainJob
from jobs.prove_resume.compare import Comparison, Result, compare
from jobs.prove_resume.page import table, write_page
from tests.helpers.snapshots import assert_snapshot

SCRIPT = "<script>alert(1)</script>"


def result(error: float = 0.0) -> Result:
    return Result(
        digests=[f"{step:04x}" for step in range(10)],
        losses=[3 - 0.1 * step + error for step in range(10)],
        world_sizes=[2] * 10,
        tensors={"main/master": torch.ones(3) + error},
        steps_redone=3,
        restarts=1,
        incidents=0,
    )


def comparisons() -> list[Comparison]:
    straight = result()
    return [
        compare("killed-rank", "kill -9 of a worker", straight, result(), must_be_identical=True),
        compare("resized", "2 -> 1 -> 2 workers", straight, result(1e-8), must_be_identical=False),
        compare(SCRIPT, SCRIPT, straight, result(1e-3), must_be_identical=True),
    ]


def test_prove_resume_page(tmp_path: Path) -> None:
    page = write_page(tmp_path, PretrainJob(name=SCRIPT), comparisons(), {"straight": 12.0, SCRIPT: 14.0})
    text = page.read_text()
    assert SCRIPT not in text
    assert_snapshot(text.partition("<details>")[0], Path(__file__).with_name("prove_page.html"))


def test_prove_resume_table() -> None:
    header, *lines = [re.split(r" {2,}", line) for line in table(comparisons()).splitlines()[:4]]
    assert header[:3] == ["run", "batches", "losses"]
    assert [line[-1] for line in lines] == ["SAME RESULT", "SAME RESULT", "DIFFERS"]
