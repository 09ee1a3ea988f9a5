"""Training without Ray, and what is refused before Ray is asked; Ray itself is in tests/integration."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from plinth.checkpoint import store
from plinth.errors import ConfigError, NonFiniteError, WorkersLostError
from plinth.launch.config import FitConfig, Workers
from plinth.launch.fit import fit
from plinth.launch.ray_train import explain_failures
from plinth.storage import Storage
from tests.helpers.toy.run import toy_run

ROOT = Path(__file__).parents[4]


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("cpus_per_worker", 0.0, "more than 0"),
        ("threads_per_worker", 0, "1 or more"),
        ("max_failures", -1, "0 or more"),
        ("start_timeout_s", 0.0, "more than 0"),
    ],
)
def test_fit_config_out_of_range_is_refused(key: str, value: float, expected: str) -> None:
    with pytest.raises(ConfigError, match=rf"fit\.{key} is {value}, expected {expected}"):
        FitConfig(**{key: value}).validate()


def test_indivisible_number_of_workers_is_refused_before_start(tmp_path: Path) -> None:
    run = toy_run(tmp_path)
    with pytest.raises(ConfigError, match=r"3 workers do not divide lanes 4.*Use one of \[1, 2, 4\] workers"):
        fit(FitConfig(workers=Workers(3, 3)), [run], run.storage)
    assert "ray" not in sys.modules or not sys.modules["ray"].is_initialized()
    assert run.storage.list() == []


@pytest.mark.parametrize(("low", "high"), [(2, 1), (0, 2), (-1, 1)])
def test_invalid_range_of_workers_is_refused(low: int, high: int) -> None:
    with pytest.raises(ConfigError, match=r"fit\.workers"):
        FitConfig(workers=Workers(low, high)).validate()


def test_bad_second_stage_is_refused_before_the_first_starts(tmp_path: Path) -> None:
    run = toy_run(tmp_path)
    with pytest.raises(ConfigError, match="second has 0 steps"):
        fit(FitConfig(workers=Workers(0, 0)), [run, toy_run(tmp_path, name="second", steps=0)], run.storage)
    assert run.storage.list() == []


ALONE = """
import sys
from pathlib import Path
from plinth.launch.config import FitConfig, Workers
from plinth.launch.fit import fit
from plinth.storage import Storage
from tests.helpers.toy.run import toy_run
if __name__ == "__main__":
    folder = Path(sys.argv[1])
    config = FitConfig(workers=Workers(0, 0))
    print(fit(config, [toy_run(folder, steps=5)], Storage.from_uri(folder / "run")).summary)
    assert "ray" not in sys.modules, "Ray is not needed"
"""


@pytest.mark.slow
def test_training_without_workers_needs_no_ray_and_no_compiler(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "MASTER_ADDR")}
    environment |= {
        "PYTHONPATH": f"{ROOT / 'platform'}:{ROOT}",
        "TORCH_EXTENSIONS_DIR": str(tmp_path / "extensions"),
    }
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("1 training process on cpu, 1 thread each")
    assert lines[1] == "toy: starting, 5 steps"
    assert lines[-2].startswith("toy: checkpoint of step 5, ")
    assert "'step': 4" in lines[-1]
    assert store.latest(toy_run(tmp_path).checkpoints) == 5
    assert not (tmp_path / "extensions").exists(), "DeepSpeed compiled something"


def test_training_without_workers_saves_and_exits_on_stop(tmp_path: Path) -> None:
    run = toy_run(tmp_path)
    asked = threading.Event()
    asked.set()
    assert fit(FitConfig(workers=Workers(0, 0)), [run], Storage.from_uri(tmp_path / "run"), asked).is_stopped
    assert store.latest(run.checkpoints) == 1
    assert not fit(FitConfig(workers=Workers(0, 0)), [run], Storage.from_uri(tmp_path / "run")).is_stopped
    assert store.latest(run.checkpoints) == 12


def test_error_of_the_job_comes_before_its_peers_errors(tmp_path: Path) -> None:
    mistake = NonFiniteError("bad.", "look.")
    errors = {0: RuntimeError("peer left"), 1: mistake}
    assert explain_failures(errors, "", 1, Storage.from_uri(tmp_path)) is mistake


def test_lost_workers_name_the_first_cause(tmp_path: Path) -> None:
    errors = {0: RuntimeError("Connection closed by peer"), 1: OSError("no space left")}
    explained = explain_failures(errors, "", 2, Storage.from_uri(tmp_path))
    assert isinstance(explained, WorkersLostError)
    assert str(explained).startswith("The workers failed more often than fit.max_failures 2 allows. First: ")
    assert "rank 0 vanished: Connection closed by peer" in str(explained)
    assert "poma runs logs" in str(explained)


def test_bug_is_not_explained_away(tmp_path: Path) -> None:
    assert explain_failures({0: RuntimeError("bug")}, "", 1, Storage.from_uri(tmp_path)) is None


def test_stages_have_their_own_checkpoints_and_scratch(tmp_path: Path) -> None:
    run = toy_run(tmp_path)
    assert run.checkpoints.uri == f"{run.storage.uri}/checkpoints"
    other = replace(run, storage=Storage.from_uri(tmp_path / "other"))
    assert run.scratch != other.scratch
    assert run.scratch.is_relative_to(tmp_path / "scratch")
