"""Trackers outside: refused before anything starts, never in the way of training, and the real packages."""

from __future__ import annotations

import logging
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from plinth.errors import ConfigError
from plinth.observe import config as metrics_config
from plinth.observe import sinks
from plinth.observe.config import MetricsConfig, SinkKind
from plinth.observe.ledger import FINISHED
from plinth.observe.metrics import MetricsWriter, scalars
from plinth.observe.sinks import RunName, Sinks, flat, redacted
from plinth.observe.step_lines import read_lines
from plinth.storage import Storage
from tests.helpers.metrics import PLANTED, FakeWandb, step_record

NAME = RunName(id="4f2a-main", group="rooms", name="rooms/main")
RESOLVED: dict[str, Any] = {
    "optim": {"lr": 1e-3},
    "note": PLANTED,
    "sources": [{"uri": f"s3://k:{PLANTED}@b"}],
}


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


def write(folder: Path, config: MetricsConfig, steps: range, first_step: int = 0) -> None:
    """Steps through the writer, as the observers have it."""
    trackers = Sinks(config, NAME, RESOLVED, folder / "sinks")
    storage = Storage.from_uri(folder / "run")
    writer = MetricsWriter(config, storage, folder / "local", "main", first_step, 100, (), trackers)
    for step in steps:
        writer.step(step_record(step))
    writer.close()
    trackers.close(FINISHED)


def wandb_config() -> MetricsConfig:
    return MetricsConfig(progress_every_s=1e9, sinks=[SinkKind.wandb], sinks_project="poma")


def test_missing_tracker_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_config.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ConfigError, match=r"metrics\.sinks has mlflow, and the package is not inst"
    ) as caught:
        MetricsConfig(sinks=[SinkKind.mlflow], sinks_project="poma").validate()
    assert "pip install" in caught.value.fix
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"sinks": [SinkKind.wandb]}, "metrics.sinks_project is empty"),
        ({"sinks": [SinkKind.wandb] * 2, "sinks_project": "p"}, "names a tracker twice"),
        ({"sinks": [SinkKind.wandb], "sinks_project": "p"}, "WANDB_API_KEY is not in the environment"),
        ({"sinks": [SinkKind.mlflow], "sinks_project": "p"}, "metrics.mlflow_uri is empty"),
        ({"sinks": [SinkKind.mlflow], "sinks_project": "p", "mlflow_uri": "mlruns"}, "is a relative path"),
        ({"sinks": [SinkKind.mlflow], "sinks_project": "p", "mlflow_uri": "sqlite:///m.db"}, "is a relative"),
        (
            {"sinks": [SinkKind.mlflow], "sinks_project": "p", "mlflow_uri": "https://ann:hunter2@lab.org"},
            "holds a password",
        ),
    ],
)
def test_what_cannot_work_is_refused(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], problem: str
) -> None:
    monkeypatch.setattr(metrics_config.importlib.util, "find_spec", lambda name: object())
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    with pytest.raises(ConfigError, match=problem.replace(".", r"\.")) as caught:
        MetricsConfig(**settings).validate()
    assert "hunter2" not in str(caught.value)


def test_trackers_get_the_scalars_of_tensorboard_and_the_config_once(
    wandb: FakeWandb, tmp_path: Path
) -> None:
    write(tmp_path, wandb_config(), range(3))
    (init,) = wandb.inits
    assert (init["id"], init["group"], init["resume"]) == ("4f2a-main", "rooms", "allow")
    assert init["config"]["optim"] == {"lr": 1e-3}
    assert wandb.rows == [{"step": s, **scalars(step_record(s))} for s in range(3)]
    assert wandb.exit_codes == [0]


def test_failing_tracker_is_disabled_with_warning(
    wandb: FakeWandb, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        write(tmp_path, wandb_config(), range(8))
    (said,) = caplog.messages
    assert said.startswith("wandb gets no more metrics, training continues: gone")
    assert PLANTED not in said
    assert len(read_lines(Storage.from_uri(tmp_path / "run"))) == 8
    assert [row["step"] for row in wandb.rows] == [0, 1, 2]


def test_hanging_tracker_does_not_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    release = threading.Event()

    class Stuck:
        def __init__(self, *_: Any) -> None:
            release.wait()

    monkeypatch.setitem(sinks.TRACKERS, SinkKind.wandb, Stuck)
    monkeypatch.setattr(sinks, "QUEUED_STEPS", 4)
    monkeypatch.setattr(sinks, "CLOSE_TIMEOUT_S", 0.1)
    with caplog.at_level(logging.WARNING):
        write(tmp_path, wandb_config(), range(8))
    release.set()
    assert caplog.messages == ["wandb gets no more metrics, training continues: it is 4 steps behind"]


def test_secrets_are_hidden_in_every_field(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANTED_TOKEN", PLANTED)
    hidden = redacted(
        {**RESOLVED, "kind": SinkKind.wandb, "deep": {"list": [PLANTED, 3]}, "password": "hunter2"}
    )
    assert PLANTED not in str(hidden)
    assert "hunter2" not in str(hidden)
    assert hidden["kind"] == "wandb"
    assert flat(hidden)["optim.lr"] == 1e-3


def test_mlflow_for_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("PLANTED_TOKEN", PLANTED)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    config = MetricsConfig(
        progress_every_s=1e9, sinks=[SinkKind.mlflow], sinks_project="poma", mlflow_uri=uri
    )
    config.validate()
    write(tmp_path, config, range(4))
    write(tmp_path, config, range(2, 6), first_step=2)  # goes on behind its checkpoint
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("poma")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["optim.lr"] == "0.001"
    assert run.data.metrics.keys() == scalars(step_record(0)).keys()
    history = client.get_metric_history(run.info.run_id, "loss/total")
    assert sorted({point.step for point in history}) == list(range(6))
    assert PLANTED.encode() not in (tmp_path / "mlflow.db").read_bytes()


@pytest.mark.slow
def test_wandb_for_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("PLANTED_TOKEN", PLANTED)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    wandb_config().validate()
    write(tmp_path, wandb_config(), range(4))
    wandb.teardown()
    (stored,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert stored.name == f"run-{NAME.id}.wandb"
    data = stored.read_bytes()
    assert b"optimizer/grad_norm" in data
    assert PLANTED.encode() not in data
