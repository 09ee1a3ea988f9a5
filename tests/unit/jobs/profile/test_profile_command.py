"""`poma profile`: a tiny job through the real entry point, its trace, its numbers and its page."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from jobs.cli import main
from jobs.common.run_layout import run_storage
from jobs.pretrain.config import PretrainJob
from jobs.profile import command
from jobs.profile.page import CHECKPOINTS, costs, page
from plinth.train.outcome import StageEnd
from plinth.train.parts import REST
from plinth.train.profile import DATA, MEMORY_TRACK, METRICS
from tests.helpers.tiny_jobs import pretrain_job, write

NUMBERS = {
    "stage": "main",
    "device": "CPU",
    "steps": 4,
    "step_ms": 16.0,
    "samples": 170,
    "world_size": 2,
    "peak_memory_bytes": 2**20,
    "parts_ms": {"backward": 6.0, "forward": 8.0, "EMA": 1.0, CHECKPOINTS: 1.0},
    "checkpoint_ms": 40.0,
    "traced_steps": 1,
    "operators": [{"name": "aten::<mm>", "calls": 3, "ms": 1.5}],
    "host_waits": {"cudaStreamSynchronize": 7},
    "memory": [[0.0, 10], [1.0, 20]],
}


@pytest.mark.slow
def test_a_job_is_taken_apart(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = write(tmp_path / "job.yaml", pretrain_job(made, output=str(tmp_path / "runs"), main=None))
    folder = tmp_path / "found"
    assert main(["profile", job, "--steps", "2", "--traced", "1", "--folder", str(folder)]) == 0
    said = capsys.readouterr().out
    assert not (tmp_path / "runs").exists(), "the job's own run is left alone"
    names = {path.name for path in folder.iterdir()}
    assert names == {"profile.html", "warmup.json", "warmup.trace.json.gz"}, "the shortened run is gone"

    numbers = json.loads((folder / "warmup.json").read_text())
    parts = numbers["parts_ms"]
    assert {"forward", "backward", "gather", "exact sums", "optimizer", DATA, METRICS, REST} <= parts.keys()
    assert sum(parts.values()) == pytest.approx(numbers["step_ms"])
    assert parts["forward"] > 0
    assert parts["backward"] > 0
    assert parts[REST] >= 0, "no part is counted twice"
    assert numbers["checkpoint_ms"] > 0, "one checkpoint lies among the measured steps"

    events = json.loads(gzip.decompress((folder / "warmup.trace.json.gz").read_bytes()))["traceEvents"]
    labels = {event["name"] for event in events if event.get("cat") == "user_annotation"}
    assert {"forward", "backward", "optimizer", METRICS} <= labels
    curve = [event["args"]["bytes"] for event in events if event.get("name") == MEMORY_TRACK]
    assert max(curve) > 0
    assert numbers["memory"]

    html = (folder / "profile.html").read_text()
    largest = costs(numbers, every_steps=2).largest
    assert largest in html
    assert largest in said
    assert 'src="http' not in html
    assert "<script src" not in html


@pytest.mark.parametrize("flag", ["--steps", "--traced"])
def test_no_steps_are_refused(flag: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = write(tmp_path / "job.yaml", pretrain_job(tmp_path))
    assert main(["profile", job, flag, "0"]) == 2
    assert f"{flag} is 0, expected 1 or more" in capsys.readouterr().err


@pytest.fixture
def earlier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an earlier profile, where a run now leaves a checkpoint and no numbers."""
    folder = tmp_path / "found"
    folder.mkdir()
    for name in ("profile.html", "main.json", "main.trace.json.gz", "notes of the user"):
        (folder / name).write_text(json.dumps(NUMBERS))
    monkeypatch.setattr(command, "resolve", lambda job: [])
    monkeypatch.setattr(command, "check", lambda job, stages: None)
    return folder


@pytest.mark.parametrize(
    ("is_stopped", "code", "said"),
    [
        (True, 143, "stopped as asked; there is no page"),
        (False, 2, "main was interrupted, so it was not measured to its end. Run the command again."),
    ],
)
def test_a_run_that_was_cut_short_shows_no_numbers_of_an_earlier_one(
    earlier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    is_stopped: bool, code: int, said: str,
) -> None:  # fmt: skip
    def cut_short(job: PretrainJob, checked: object) -> StageEnd:
        run_storage(job).write("main/checkpoints/step-00000001/COMMIT.json", b"{}")
        return StageEnd(is_stopped=is_stopped)

    monkeypatch.setattr(command, "launch", cut_short)
    job = write(tmp_path / "job.yaml", pretrain_job(tmp_path, warmup=None))
    assert main(["profile", job, "--folder", str(earlier)]) == code
    told = capsys.readouterr()
    assert said in told.out + told.err
    assert [path.name for path in earlier.iterdir()] == ["notes of the user"], "nor is the run left there"


def test_a_checkpoint_is_spread_over_the_steps_between_two_of_the_jobs() -> None:
    stage = costs(NUMBERS, every_steps=20)
    assert stage.parts_ms == {"forward": 8.0, "backward": 6.0, CHECKPOINTS: 2.0, "EMA": 1.0}
    assert stage.largest == "forward 47%, backward 35%, checkpoints 12%"
    assert stage.samples_per_s == pytest.approx(1000 * 170 / 17), "of the step that the page shows"
    assert costs(NUMBERS, every_steps=0).parts_ms[CHECKPOINTS] == 0


def test_names_from_outside_are_escaped() -> None:
    html = page(PretrainJob(name="<b>", output="x"), [costs(NUMBERS, 20)])
    assert "<b>" not in html
    assert "aten::&lt;mm&gt;" in html
    assert "cudaStreamSynchronize: 7 calls" in html
