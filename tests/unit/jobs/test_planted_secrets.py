"""Secrets planted wherever a run meets text: none is in anything that it leaves, says or sends."""

from __future__ import annotations

import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.cli import main
from jobs.runs.page import write_page
from plinth.engine.engine import Engine
from plinth.storage import Storage
from plinth.train import loop
from tests.helpers.metrics import PLANTED, FakeWandb
from tests.helpers.tiny_jobs import pretrain_job, write

SIGNED = "51gn3d-url"
SAID = f"GET https://b.s3.amazonaws.com/k?X-Amz-Signature={SIGNED}&x=1 with {PLANTED} was refused"


@pytest.fixture(autouse=True)
def _planted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MY_SECRET_KEY", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "WANDB_API_KEY", "DB_PASSWORD"):
        monkeypatch.setenv(name, PLANTED)


def is_clean(text: str) -> bool:
    return PLANTED not in text and SIGNED not in text


@pytest.mark.slow
def test_run_leaves_no_planted_secret_anywhere(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """It fails at a step with a message full of them, skips samples for a reason full of them, and ends."""
    wandb = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    sinks = {"sinks": ["wandb"], "sinks_project": "poma", "pictures_every_steps": 1}
    job = write(
        folder / "job.yaml",
        pretrain_job(
            folder, metrics=sinks, storage={"access_key_env": "HF_TOKEN", "secret_key_env": "HF_TOKEN"}
        ),
    )
    step, decide = Engine.step, loop.Consensus.decide

    def failing(self: Engine, *arguments: Any, **settings: Any) -> Any:
        if self.completed_steps == 2:
            logging.getLogger("plinth.data").warning("asking again: %s", SAID)
            raise RuntimeError(SAID)
        return step(self, *arguments, **settings)

    with monkeypatch.context() as once:
        once.setattr(Engine, "step", failing)
        with pytest.raises(RuntimeError) as caught:
            main(["pretrain", job])
        sys.excepthook(caught.type, caught.value, caught.tb)
    monkeypatch.setattr(
        loop.Consensus, "decide", lambda *of_ranks: replace(decide(*of_ranks), has_skipped=True)
    )
    monkeypatch.setattr(loop, "_gathered", lambda it, own: [SAID])
    assert main(["pretrain", job]) == 0
    runs = folder / "runs" / "run"
    write_page(Storage.from_uri(runs))
    assert main(["runs", "show", str(runs)]) == 0
    assert main(["runs", "logs", str(runs)]) == 0
    kinds = {path.name.split(".", 1)[-1] for path in runs.rglob("*") if path.is_file()}
    assert {"yaml", "html", "jsonl", "log", "failure.json", "json"} <= kinds
    files = [path for path in runs.rglob("*") if path.is_file()]
    dirty = [str(p) for p in files if not is_clean(p.read_bytes().decode(errors="replace"))]
    assert not dirty
    out, err = capfd.readouterr()
    assert "was refused" in err, "the traceback is there"
    assert "was refused" in out, "the log is there"
    assert is_clean(out + err)
    assert is_clean(str((wandb.inits, wandb.rows)))
    assert wandb.inits


@pytest.mark.parametrize("override", [f"storage.profile={PLANTED}", "name=AKIAIOSFODNN7EXAMPLE"])
def test_job_with_a_secret_is_refused_before_it_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], override: str
) -> None:
    assert main(["pretrain", write(tmp_path / "job.yaml", pretrain_job(tmp_path)), override]) == 2
    out, err = capsys.readouterr()
    assert "holds a secret (not shown)" in err
    assert override.partition("=")[2] not in out + err
    assert not (tmp_path / "runs").exists()
