"""`poma doctor` on jobs of heads and language models."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.cli import main
from jobs.doctor import all_reduce
from tests.helpers.downstream.heads import finetune_job
from tests.helpers.downstream.llm_jobs import job_of
from tests.helpers.tiny_jobs import write


@pytest.fixture(autouse=True)
def no_ring(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two more processes for every test: it has tests of its own."""
    monkeypatch.setattr(all_reduce, "local_ring", lambda workers, gpus: [])


def test_a_language_model(llm_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = job_of(llm_home, tmp_path / "runs")
    assert main(["doctor", write(tmp_path / "llm.yaml", job)]) == 0
    out = capsys.readouterr().out
    for line in (
        "ok    workers", "ok    storage", "ok    memory",
        "ok    data       train.conversations[0]: 110 of rooms about 8 scenes",
    ):  # fmt: skip
        assert line in out
    assert not [path for path in (tmp_path / "runs").rglob("*") if path.is_file()], "something is left"
    assert main(["doctor", str(tmp_path / "llm.yaml"), "train.features=[nowhere]"]) == 2
    assert "nowhere" in capsys.readouterr().out


def test_a_head(prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = finetune_job(prepared) | {"output": str(tmp_path / "runs")}
    assert main(["doctor", write(tmp_path / "qa.yaml", job)]) == 0
    out = capsys.readouterr().out
    assert "ok    data       train: 110 questions about 8 scenes, seen through" in out
    assert "ok    memory     heads, 1 worker" in out
    assert not [path for path in (tmp_path / "runs").rglob("*") if path.is_file()], "something is left"
    assert main(["doctor", str(tmp_path / "qa.yaml"), "heads.data.lanes=3"]) == 2
    assert "lanes" in capsys.readouterr().out
