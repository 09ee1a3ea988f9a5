"""`poma runs page`: all runs of a folder on one page, their curves laid over each other."""

from __future__ import annotations

import html
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs import cli
from jobs.runs.compare import write_runs_page
from jobs.runs.curves import MEANINGS
from jobs.runs.started import STARTS_KEY, Start
from plinth.errors import StorageError
from plinth.observe.ledger import FINISHED
from plinth.observe.step_lines import read_lines
from plinth.storage import Storage
from tests.helpers.run_folder import NOW, killed_run

SCRIPT = "<script>alert(1)"


def run(folder: Path, name: str, started: float, lr: float = 1e-3, step: int = 70) -> Storage:
    """A run with a start; the longest is finished."""
    killed_run(folder, step, outcome=FINISHED)
    storage = Storage.from_uri((folder / "rooms").rename(folder / name))
    start = Start(started, "poma pretrain", "0.1.0", "local")
    storage.write(STARTS_KEY, json.dumps([asdict(start)]).encode())
    job = yaml.safe_load(storage.read("config.yaml")) | {"name": name, "lr": lr, "size": {"views": 8}}
    storage.write("config.yaml", yaml.safe_dump(job).encode())
    return storage


def page(folder: Path) -> str:
    storage = Storage.from_uri(folder)
    assert write_runs_page(storage, NOW) == f"{storage.uri}/runs.html"
    return (folder / "runs.html").read_text()


def charts(text: str) -> dict[str, dict[str, Any]]:
    found = re.findall(r'<script type="application/json">(.*?)</script>', text)
    return {chart["title"]: chart for chart in map(json.loads, found)}


def test_every_quantity_is_a_chart_with_a_series_per_run(tmp_path: Path) -> None:
    one = run(tmp_path, "one", NOW - 9)
    run(tmp_path, "two", NOW - 8, step=120)
    text = page(tmp_path)
    found = charts(text)
    quantities = ["loss", "view", "scene", "target_feature_std", "effective_rank", "gradient norm"]
    quantities += ["samples per second"]
    assert list(found) == [f"{stage}: {name}" for stage in ("warmup", "main") for name in quantities]
    assert all(chart["order"] == ["one", "two"] for chart in found.values())
    assert len({tuple(each["colour"] for each in chart["series"]) for chart in found.values()}) == 1
    x, losses = found["main: view"]["tables"][0]
    assert x == list(range(70))
    wanted = [line["terms"]["view"] for line in read_lines(one.child("main"))]
    assert losses == pytest.approx(wanted, rel=1e-5)
    assert text.count("<svg") == len(found), "plots for browsers without scripts"


def test_the_runs_that_were_started_last_are_ticked(tmp_path: Path) -> None:
    for i in range(7):
        run(tmp_path, f"run-{i}", NOW - 100 * i)
    boxes = re.findall(r'data-series="([^"]+)"( checked)?', page(tmp_path))
    assert [name for name, ticked in boxes if ticked] == [f"run-{i}" for i in range(5)]
    assert len(boxes) == 7


def test_ticked_runs_have_colours_of_their_own_whatever_their_names(tmp_path: Path) -> None:
    run(tmp_path, "a", NOW)
    for name in "bcdefgh":
        Storage.from_uri(tmp_path / name).write("config.yaml", b"kind: pretrain")  # before its first step
    run(tmp_path, "i", NOW)  # the ninth by name
    one, other = charts(page(tmp_path))["main: loss"]["series"]
    assert one["colour"] != other["colour"]


def test_a_chart_keeps_the_note_of_its_quantity_and_one_run_is_no_plural(tmp_path: Path) -> None:
    run(tmp_path, "one", NOW)
    text = page(tmp_path)
    assert text.count(f'<p class="note">{MEANINGS["gradient norm"]}</p>') == 2, "of both stages"
    assert "<title>1 run</title>" in text


def test_where_the_jobs_differ_is_a_table(tmp_path: Path) -> None:
    run(tmp_path, "one", NOW)
    run(tmp_path, "two", NOW, lr=2e-3)
    table = page(tmp_path).partition("Where the jobs differ")[2].partition("</table>")[0]
    rows = re.findall(r'<tr><th scope="row">(.*?)</th><td>(.*?)</td><td>(.*?)</td></tr>', table)
    assert rows == [("lr", "0.001", "0.002")], "neither names nor what is the same"


def test_names_and_values_are_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANTED_SECRET", "pl4nted-s3cret")
    storage = run(tmp_path, SCRIPT, NOW)
    storage.write("index.html", b"a page")
    job = {"name": SCRIPT, "note": SCRIPT, "token": "pl4nted-s3cret"}
    storage.write("config.yaml", yaml.safe_dump(job).encode())
    run(tmp_path, "two", NOW)
    text = page(tmp_path)
    assert SCRIPT not in text
    assert f">{html.escape(SCRIPT)}</a>" in text, "its name"
    assert f"<td>{html.escape(SCRIPT)}</td>" in text, "the value of a key"
    assert 'href="%3Cscript%3Ealert%281%29/index.html"' in text
    assert "pl4nted" not in text


def test_a_damaged_run_is_a_row(tmp_path: Path) -> None:
    run(tmp_path, "one", NOW)
    storage = run(tmp_path, "two", NOW)
    storage.write("config.yaml", b"\xff: [")
    text = page(tmp_path)
    assert '<span class="status bad">damaged</span>' in text
    assert charts(text)["main: loss"]["order"] == ["one"]


def test_a_folder_without_runs_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(StorageError, match="holds no runs"):
        write_runs_page(Storage.from_uri(tmp_path), NOW)
    run(tmp_path / "runs", "one", NOW)
    assert cli.main(["runs", "page", str(tmp_path / "runs")]) == 0
    assert capsys.readouterr().out == f"page: {tmp_path}/runs/runs.html\n"
