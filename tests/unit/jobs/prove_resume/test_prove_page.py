"""The page and the table of `poma prove-resume`."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest
import torch

from jobs.pretrain.config import PretrainJob
from jobs.prove_resume import page as page_module
from jobs.prove_resume.compare import (
    Comparison,
    Interruption,
    Result,
    compare,
    interruptions,
    weights_hash,
)
from jobs.prove_resume.page import made_by, table, write_page
from plinth.observe.ledger import FAILED, FINISHED, RUNNING, STOPPED, Mark, Record
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
        interruptions=[Interruption(4, "killed"), Interruption(7, "stopped, 2 → 1")] if error else [],
        weights_hash=weights_hash({"main/master": torch.ones(3) + error}),
    )


def comparisons() -> list[Comparison]:
    straight = result()
    return [
        compare("killed-rank", "kill -9 of a worker", straight, result(), must_be_identical=True),
        compare("resized", "2 -> 1 -> 2 workers", straight, result(1e-8), must_be_identical=False),
        compare(SCRIPT, SCRIPT, straight, result(1e-3), must_be_identical=True),
    ]


def test_prove_resume_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = {"Command": f"poma prove-resume {SCRIPT}", "Code": "0.1.0, commit 123456789abc"}
    monkeypatch.setattr(page_module, "made_by", lambda: made)
    page = write_page(tmp_path, PretrainJob(name=SCRIPT), comparisons(), {"straight": 12.0, SCRIPT: 14.0})
    text = page.read_text()
    assert SCRIPT not in text
    assert f"<dd>poma prove-resume {html.escape(SCRIPT)}</dd>" in text
    assert_snapshot(text.partition("<details>")[0], Path(__file__).with_name("prove_page.html"))


def test_prove_resume_table() -> None:
    header, *lines = [re.split(r" {2,}", line) for line in table(comparisons()).splitlines()[:4]]
    assert header[:3] == ["run", "batches", "losses"]
    assert [line[-1] for line in lines] == ["SAME RESULT", "SAME RESULT", "DIFFERS"]


def record(attempt: str, stage: str, size: int, started: float, outcome: str, first: int | None) -> Record:
    marks = [] if first is None else [Mark(first), Mark(first + 4, 1.0)]
    return Record(attempt, stage, size, 0, started, started + 1, 1.0, outcome=outcome, marks=marks)


def test_where_runs_went_on_is_counted_over_all_stages() -> None:
    records = [
        record("a", "warmup", 2, 0, FAILED, 0),
        record("b", "warmup", 2, 1, FINISHED, 4),
        record("b", "main", 2, 2, RUNNING, 0),  # its driver was killed: nobody wrote an end
        record("c", "main", 2, 3, FAILED, None),  # before its first step
        record("d", "main", 1, 4, STOPPED, 4),
        record("e", "main", 4, 5, FINISHED, 6),
    ]
    assert interruptions(records[::-1], {"warmup": 12, "main": 12}) == [
        Interruption(4, "killed"),
        Interruption(16, "killed, 2 → 1"),
        Interruption(18, "stopped, 1 → 4"),
    ]


def test_the_hash_is_of_the_last_stage_and_of_every_bit() -> None:
    weights = {
        "warmup/master": torch.zeros(3),
        "main/master/a": torch.ones(3),
        "main/exp_avg/a": torch.ones(3),
    }
    found = weights_hash(weights)
    assert len(found) == 64
    assert weights_hash(weights | {"warmup/master": torch.ones(3), "main/exp_avg/a": torch.zeros(3)}) == found
    other = torch.ones(3).view(torch.int32) + torch.tensor([0, 0, 1], dtype=torch.int32)
    assert weights_hash(weights | {"main/master/a": other.view(torch.float32)}) != found
    assert weights_hash({}) == ""


def test_the_page_says_what_it_was_made_by(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANTED_SECRET", "pl4nted-s3cret")
    monkeypatch.setattr("sys.argv", ["/usr/bin/poma", "prove-resume", "name=pl4nted-s3cret"])
    found = made_by()
    assert found["Command"] == "poma prove-resume name=***"
    assert torch.__version__ in found["Python, torch, Ray"]
