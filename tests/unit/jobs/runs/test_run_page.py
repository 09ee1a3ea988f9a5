"""The run page: all that is known, self-contained, refreshed only while the run goes on."""

from __future__ import annotations

import html
import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from jobs.common.ray_config import RayConfig
from jobs.display.figures import Mark
from jobs.runs import page as run_page
from jobs.runs.curves import CURVE_POINTS, joined, part_of, read_steps, stage_curves
from jobs.runs.page import Pace, page_kept, write_page
from jobs.runs.started import read_starts, record_start
from jobs.runs.state import read_run
from jobs.runs.text import describe
from plinth.errors import StorageError
from plinth.observe import incidents
from plinth.observe.failures import Failure
from plinth.observe.incidents import Incident
from plinth.observe.ledger import FAILED, FINISHED
from plinth.observe.step_lines import read_lines
from plinth.storage import Storage
from plinth.storage.lock import RunLock
from plinth.storage.options import LockConfig
from poma3d.network.outputs import jepa_logs
from tests.helpers.run_folder import NOW, failures, killed_run
from tests.helpers.snapshots import assert_snapshot


def written(storage: Storage, now: float = NOW) -> str:
    assert write_page(storage, now) == f"{storage.uri}/index.html"
    return storage.read("index.html").decode()


def test_page_of_a_running_run(tmp_path: Path) -> None:
    text = written(killed_run(tmp_path))
    assert not re.findall(r"<link|@import|url\(['\"]?http|src=", text)
    assert text.count("<svg") == 10
    assert text.index("Stage warmup") < text.index("Stage main")
    assert_snapshot(text, Path(__file__).with_name("run_page.html"))


def test_names_and_messages_are_shown_as_text(tmp_path: Path) -> None:
    script = "<script>alert(1)</script>"
    killed_run(tmp_path)
    storage = Storage.from_uri((tmp_path / "rooms").rename(tmp_path / "<script>alert(2)"))
    incidents.write(storage.child("main"), Incident(script, 52, 1, 3, False, [script], [], action=script))
    failures(storage, [Failure("a2", 0, script, 9, NOW - 9, script, script, script, 70, [script])])
    storage.write("config.yaml", storage.read("config.yaml") + f"note: {script}\n".encode())
    text = written(storage)
    assert "<script>alert" not in text
    assert "<h1>&lt;script&gt;alert(2)</h1>" in text
    assert text.count(html.escape(script)) == 9


def test_training_loads_the_page_without_commands_or_matplotlib() -> None:
    program = "import sys, jobs.runs.page; print(*sys.modules)"
    path = {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=os.environ | path, capture_output=True, text=True)
    loaded = done.stdout.split()
    assert "jobs.runs.page" in loaded, done.stderr
    unwanted = re.compile(r"matplotlib|jobs\.\w+\.(command|arguments)")
    assert not [name for name in loaded if unwanted.fullmatch(name)]


def test_it_is_loaded_again_only_while_the_run_goes_on(tmp_path: Path) -> None:
    assert 'http-equiv="refresh" content="30"' in written(killed_run(tmp_path))
    done = written(killed_run(tmp_path, 120, outcome=FINISHED))
    assert "http-equiv" not in done
    assert 'class="status good">finished' in done


def test_a_failed_run_says_why_before_anything_else(tmp_path: Path) -> None:
    text = written(killed_run(tmp_path, outcome=FAILED), NOW + 9999)
    assert 'class="status bad">failed' in text
    assert text.index("vanished in step 48") < text.index("Stage warmup") < text.index("Stage main")


def test_the_traceback_of_the_cause_is_there(tmp_path: Path) -> None:
    storage = killed_run(tmp_path)
    own = Failure(
        "a2", 0, "node-1", 9, NOW - 9, "ValueError", "no depth", "File x\nValueError: no <depth>", 70
    )
    failures(storage, [own])
    text = written(storage)
    assert text.index("ValueError: no depth") < text.index("vanished in step 48"), "the last one first"
    assert "<summary>Traceback</summary><pre>File x\nValueError: no &lt;depth&gt;</pre>" in text


def test_a_rank_that_holds_the_others_up_is_named_on_the_page_and_in_show(tmp_path: Path) -> None:
    storage = killed_run(tmp_path)
    assert not read_run(storage, NOW).slow
    ranks = {"data_wait_s": [0.1, 6.0], "compute_s": [3.0, 3.0], "hosts": [["node-1", 1], ["node-<2>", 1]]}
    found = [{**line, "ranks": ranks} for line in read_lines(storage.child("main"))]
    storage.write("main/metrics.jsonl", "".join(json.dumps(line) + "\n" for line in found).encode())
    said = "rank 1 on node-{} is slow: it waits 6.00 s per step for its data, the others 0.10 s (a step is "
    assert "held by ann on node-1, process 11. " + said.format("&lt;2&gt;") in written(storage)
    assert [line for line in describe(read_run(storage, NOW)) if line.startswith(said.format("<2>"))]


def test_a_run_before_its_first_step(tmp_path: Path) -> None:
    storage = killed_run(tmp_path)
    for key, _ in storage.list():
        if key not in ("config.yaml", "LOCK.json"):
            storage.delete(key)
    text = written(storage)
    assert "before the first step" in text
    assert "uPlot" not in text, "no library without a curve"
    assert "Where the time went" not in text
    assert "<svg" not in text


def test_curves_of_long_runs_are_means_of_neighbours(tmp_path: Path) -> None:
    lines = read_lines(killed_run(tmp_path, 70).child("main"))
    many = [{**line, "step": i, "grad_norm": float(i)} for i, line in enumerate(lines * 30)]
    curves = {curve.title: curve.series for curve in stage_curves("main", joined([part_of(many)]))}
    titles = ["loss", "target_feature_std", "effective_rank", "gradient norm", "samples per second"]
    assert list(curves) == [f"main: {title}" for title in titles]
    assert list(curves["main: loss"]) == ["total", "view", "scene"]
    x, y = curves["main: gradient norm"]["before clipping"]
    assert len(x) == CURVE_POINTS
    assert x == y
    assert x[0] == 2.5, "the mean of the first six"
    assert x == sorted(x)
    (short,) = [c for c in stage_curves("main", joined([part_of(lines)])) if c.title == "main: loss"]
    steps, losses = short.series["total"]
    assert 10 not in steps, "a loss that was not finite has no point"
    assert losses[0] == 5.0
    assert len(steps) == 69


def test_a_planted_secret_reaches_no_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANTED_SECRET", "pl4nted-s3cret")
    storage = killed_run(tmp_path)
    storage.write("config.yaml", storage.read("config.yaml") + b"note: pl4nted-s3cret\n")
    assert "pl4nted" not in written(storage)


def test_the_page_is_kept_while_something_runs(tmp_path: Path) -> None:
    storage = killed_run(tmp_path)
    with page_kept(storage, every_s=1e6):
        assert not storage.exists("index.html")
    assert storage.exists("index.html")


def test_a_page_that_cannot_be_written_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise StorageError("the store is away.")

    monkeypatch.setattr(run_page, "write_page", refuse)
    with caplog.at_level(logging.WARNING), page_kept(killed_run(tmp_path), every_s=1e6):
        pass
    assert caplog.messages == [
        "the run's page cannot be written, trying again every 1e+06 s: the store is away."
    ]


def test_a_page_that_is_not_written_again_says_so_itself(tmp_path: Path) -> None:
    """The page of a run that died stays as it is: its script compares its age with the browser's clock."""
    text = written(killed_run(tmp_path))
    assert f"written = {NOW:.0f}, limit = {3 * 30 + 30};" in text
    assert "no sign of life" in text
    assert "no sign of life" not in written(killed_run(tmp_path, 120, outcome=FINISHED))


def test_a_run_whose_process_is_gone_is_not_running(tmp_path: Path) -> None:
    storage = killed_run(tmp_path)
    storage.delete("LOCK.json")
    with RunLock(storage, LockConfig(beat_every_s=100)):
        own = storage.read("LOCK.json")
        assert read_run(storage, NOW).status == "running"
    storage.write("LOCK.json", json.dumps({**json.loads(own), "process_start": 1}).encode())
    state = read_run(storage, NOW)
    assert (state.status, "its process is gone" in state.detail) == ("failed", True)


def test_evaluations_starts_and_data_are_on_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = killed_run(tmp_path)
    own = {"R@1-5": {"value": 0.25, "low": 0.125, "high": 0.5}}
    old, new = ({"about": {"data": {"uri": f"set-{n}"}, "date": f"2026-01-0{n}"}} for n in (1, 2))
    for name, content in (("b", old), ("a", new)):
        results = content | {"chance": {"R@1-5": 0.1}, "this <encoder>": own, "probe": "none"}
        storage.write(f"evaluations/{name}.json", json.dumps(results).encode())
    storage.write("evaluations/torn.json", b"{")
    job = b"teacher: {source: tiny}\nmain: {data: {sources: [{uri: rooms}]}}\n"
    storage.write("config.yaml", job)
    storage.write("data.json", json.dumps({"main": {"rooms": 3}}).encode())
    monkeypatch.setattr(sys, "argv", ["/usr/bin/poma", "pretrain", "job.yaml", "name=<b>"])
    record_start(storage, RayConfig(address="ray://head:10001"), workers=2)
    record_start(storage, RayConfig(), workers=0)
    text = written(storage)
    assert text.index("set-2, 2026-01-02") < text.index("set-1, 2026-01-01"), "the newest first"
    assert "0.250 [0.125, 0.500]" in text
    assert "this &lt;encoder&gt;" in text
    assert "<li>main: rooms, version 3</li>" in text
    assert "<li>teacher: tiny</li>" in text
    assert "poma pretrain job.yaml name=&lt;b&gt;" in text
    assert "none: trained in the driver" in text
    assert read_starts(storage)[0].cluster == "ray://head:10001"


def test_one_evaluation_of_a_run_from_before_there_were_several(tmp_path: Path) -> None:
    storage = killed_run(tmp_path)
    results = {"chance": {"R@1-5": 0.1}, "this encoder": {"R@1-5": {"value": 0.25, "low": 0.1, "high": 0.5}}}
    storage.write("evaluation.json", json.dumps(results).encode())
    assert "0.250 [0.100, 0.500]" in written(storage)


def test_every_sign_of_collapse_has_a_sentence(tmp_path: Path) -> None:
    tokens = torch.randn(2, 3, 4)
    logs = jepa_logs(tokens, tokens, tokens, torch.ones(2, 3, dtype=torch.bool))
    lines = [
        line | {"logs": dict.fromkeys(logs, 0.5)} for line in read_lines(killed_run(tmp_path).child("main"))
    ]
    curves = stage_curves("main", joined([part_of(lines)]))
    notes = {curve.title: curve.note for curve in curves}
    assert [name for name in logs if not notes[f"main: {name}"]] == []
    assert not notes["main: loss"]


def test_restarts_are_marked_in_the_curves(tmp_path: Path) -> None:
    text = written(killed_run(tmp_path))
    assert "Dotted: where it went on after a restart (1)." in text
    marks = (Mark(40.0, "restart"),)
    curves = stage_curves("main", read_steps(killed_run(tmp_path).child("main")), marks)
    assert all(curve.marks == marks for curve in curves)


def test_a_page_that_takes_long_is_written_less_often() -> None:
    now = [0.0]
    pace = Pace(30.0, lambda: now[0])
    for took_s, expected in ((0.1, 30.0), (6.0, 120.0)):
        assert pace.is_due()
        with pace.measured():
            now[0] += took_s
        assert pace.every_s == pytest.approx(expected)
        now[0] += 30.0
    assert not pace.is_due(), "of a core it takes no more than a twentieth"
    now[0] += 90.0
    assert pace.is_due()
    with pace.measured():
        now[0] += 6.0
    assert not pace.is_due()
    pace.is_ending = True
    assert pace.is_due()
