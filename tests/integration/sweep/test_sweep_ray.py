"""Sweeps on a real Ray: trials that are given up, that die, that take over.

See `test_sweep_s3` for a sweep that is killed, `test_sweep_nodes` for a cluster that changes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.util.state import list_actors

from plinth.errors import ConfigError
from plinth.observe.step_lines import read_lines
from plinth.sweep.config import SchedulerConfig, SchedulerKind
from plinth.sweep.records import Status, Trial, read_trials
from tests.helpers.toy.run import GLOBAL_BATCH
from tests.helpers.toy.sweep import CPUS, GROUP_KEY, PATIENCE_S, STEPS, Watched, driver, reserved, toy_config

pytestmark = pytest.mark.slow
TRIAL_CPUS = 0.1 + CPUS
FULL = STEPS * GLOBAL_BATCH


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sweeps")


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init(
        address="local", num_cpus=1, include_dashboard=True, dashboard_host="127.0.0.1", log_to_driver=False
    )
    yield
    ray.shutdown()


def everything_is_back() -> bool:
    """Whether all resources are free and no placement group is left."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        groups = ray.util.placement_group_table().values()
        free = ray.available_resources().get("CPU", 0) == ray.cluster_resources()["CPU"]
        if free and all(group["state"] == "REMOVED" for group in groups):
            return True
        time.sleep(0.5)
    return False


def is_back(watched: Watched, trial: Trial) -> bool:
    """Whether a trial that was stopped gives back its group, driver and worker, while others go on."""
    group = watched.sweep.storage.child("trials").child(trial.record.name).read(GROUP_KEY).decode()
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        held = reserved()
        used = ray.cluster_resources()["CPU"] - ray.available_resources().get("CPU", 0)
        here = ray.get_runtime_context().gcs_address  # there may be another Ray on this machine
        actors = list_actors(address=here, filters=[("state", "=", "ALIVE")], detail=True)
        alive = [actor for actor in actors if actor.placement_group_id == group]
        if group not in held and not alive and used <= len(held) * TRIAL_CPUS + 1e-6:
            return True
        time.sleep(0.2)
    return False


def test_asha_stops_bad_trials_and_frees_their_resources(cluster: None, folder: Path) -> None:
    """Successive halving; one trial dies in its middle and goes on; one CPU holds two trials at a time."""
    sweep = driver(folder, toy_config(), "asha", die_once=0)
    assert sweep.concurrent() == 2
    watched = Watched(sweep)
    seen: set[str] = set()
    while watched.is_running:
        for trial in watched.trials():
            if trial.record.status is Status.stopped and trial.record.name not in seen:
                seen.add(trial.record.name)
                assert is_back(watched, trial)
        time.sleep(0.1)
    trials = watched.trials()
    assert {t.record.status for t in trials} <= {Status.finished, Status.stopped}
    stopped = [t for t in trials if t.record.status is Status.stopped]
    assert stopped
    assert all(t.history.reports[-1].samples < FULL for t in stopped)
    assert (folder / "has-died").exists()
    lines = read_lines(sweep.storage.child("trials/000/toy"))
    assert [line["step"] for line in lines] == list(range(len(lines)))
    best = min(trials, key=lambda t: t.best("loss", "min") or 1e9)
    assert best.record.status is Status.finished
    assert everything_is_back()


def test_population_training_clones_weights(cluster: None, folder: Path) -> None:
    config = toy_config(SchedulerKind.pbt)
    config.space["lr"].grid = [1e-6, 5e-3]
    config.trials = 2
    config.scheduler = SchedulerConfig(SchedulerKind.pbt, exploit_every=0.5, exploit_quantile=0.5)
    sweep = driver(folder, config, "population")
    assert sweep.run().status == "finished"
    trials = read_trials(sweep.storage)
    assert [t.record.status for t in trials] == [Status.finished] * 2
    heirs = [t for t in trials if t.history.donors]
    assert heirs
    for trial in heirs:
        assert trial.history.values["lr"] in (1e-6, 5e-3)
        lines = read_lines(sweep.storage.child(f"trials/{trial.record.name}/toy"))
        steps = [line["step"] for line in lines]
        assert steps == sorted(set(steps))
        # The donor may have been ahead: what it did beyond this trial's last step is in its own metrics.
        adopted = trial.history.adopted["toy"]
        assert [step for step in steps if step >= adopted] == list(range(adopted, STEPS))
    assert everything_is_back()


def test_cluster_too_small_for_one_trial_is_refused(cluster: None, folder: Path) -> None:
    config = toy_config()
    config.workers = 4
    with pytest.raises(ConfigError, match=r"A trial of 4 workers needs 1.7 CPU; the cluster has 1 CPU"):
        driver(folder, config, "small").run()
    assert everything_is_back()
