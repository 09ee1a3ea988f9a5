"""What a run's folder says after a worker was killed in mid-step under Ray Train, with nothing made up."""

from __future__ import annotations

import json
import os
import socket
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from jobs.runs import command as runs
from jobs.runs.page import write_page
from jobs.runs.state import read_run
from plinth.launch.config import FitConfig, Workers
from plinth.launch.fit import fit
from plinth.observe.config import LedgerConfig
from plinth.observe.failures import LOST_SUFFIX, VANISHED, first_cause, read_failures
from plinth.observe.ledger import CATEGORIES, FAILED, FINISHED, IDLE, RUNNING, read_records
from plinth.storage import Storage, StorageOptions
from plinth.train import attempt
from tests.helpers.toy.run import StageThatDies, build_dying, toy_run

pytestmark = pytest.mark.slow
CONFIG = FitConfig(workers=Workers(2, 2), cpus_per_worker=0.5, max_failures=1)
PLANTED = "pl4nted-s3cret-of-a-test"
DIED_IN = StageThatDies.DIES_AT


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    """A run of two workers whose rank 1 was killed in step 6, and that Ray then brought to its end."""
    import ray

    folder = tmp_path_factory.mktemp("lost")
    storage = Storage.from_uri(folder / "run")
    storage.write("config.yaml", b"main: {steps: 12}\n")
    run = replace(
        toy_run(folder, build_stage=partial(build_dying, folder / "died")),
        name="main",
        storage=storage.child("main"),
        ledger=LedgerConfig(beat_every_s=0.5, price_per_gpu_hour=2.0),
    )
    os.environ["PLANTED_SECRET"] = PLANTED  # before Ray starts: the workers have it, too
    ray.init(
        address="local", num_cpus=2, include_dashboard=True, dashboard_host="127.0.0.1", log_to_driver=False
    )
    try:
        end = fit(CONFIG, [run], storage)
    finally:
        ray.shutdown()
        del os.environ["PLANTED_SECRET"]
    assert end.summary["step"] == 11
    assert (folder / "died").exists()
    return storage


def test_first_cause_is_the_killed_rank(run_folder: Storage) -> None:
    (lost,) = [key for key, _ in run_folder.list("logs") if key.endswith(LOST_SUFFIX)]
    assert json.loads(run_folder.read(lost)) == {"1": ""}, (
        "Ray's controller saw it die before it ended rank 0"
    )
    failures = read_failures(run_folder)
    (killed,) = [failure for failure in failures if failure.rank == 1]
    assert (killed.error, killed.step, killed.host) == (VANISHED, DIED_IN, socket.gethostname())
    assert len(killed.sample_ids) == 4, "this rank's half of the batch"
    (other,) = [failure for failure in failures if failure.rank == 0]
    assert other.is_collective or other.error == VANISHED, "it met the gap, or Ray ended it before"
    report = first_cause(failures)
    assert report.startswith(f"rank 1 on {socket.gethostname()} vanished in step {DIED_IN} of main, ")


def test_ledger_counts_every_second_once(run_folder: Storage) -> None:
    first, second = read_records(run_folder)
    assert first.outcome in (FAILED, RUNNING), "Ray may end rank 0 before it says so"
    assert second.outcome == FINISHED
    assert first.marks[-1].step == DIED_IN
    resumed = second.marks[0].step
    assert second.marks[-1].step == 12
    state = read_run(run_folder, time.time())
    book = state.ledger
    assert (state.status, book.restarts, book.steps_redone) == ("finished", 1, DIED_IN - resumed)
    assert sum(book.seconds[category] for category in CATEGORIES) == pytest.approx(book.wall_s, rel=1e-6)
    assert book.wall_s == pytest.approx(second.beat - first.started)
    assert book.seconds["start_up"] > 0
    assert book.seconds["productive"] > 0
    assert book.seconds[IDLE] >= second.started - first.beat > 0
    assert book.cost is not None
    assert sum(book.cost.values()) == 0, "no GPU was used"


def test_logs_of_all_ranks_are_in_storage_only(run_folder: Storage) -> None:
    names = {key.rsplit("-", 1)[1] for key, _ in run_folder.list("logs") if key.endswith(".log")}
    assert names == {"rank0.log", "rank1.log"}
    assert len([key for key, _ in run_folder.list("logs") if key.endswith(".log")]) == 4
    local = attempt.local_folder(run_folder, "")
    assert not local.exists() or not list(local.iterdir())


def test_runs_show_and_run_page_name_the_lost_worker(
    run_folder: Storage, capsys: pytest.CaptureFixture[str]
) -> None:
    assert runs.show(run_folder.uri, StorageOptions()) == 0
    text = capsys.readouterr().out
    assert "finished" in text.splitlines()[0]
    assert f"rank 1 on {socket.gethostname()} vanished in step {DIED_IN}" in text
    write_page(run_folder)
    page = run_folder.read("index.html").decode()
    assert "main, step 12 of 12" in page
    assert "vanished in step" in page


def test_the_planted_secret_is_in_no_file(run_folder: Storage) -> None:
    for path in Path(run_folder.root).rglob("*"):
        assert path.is_dir() or PLANTED.encode() not in path.read_bytes(), path
