"""HParams read back with TensorBoard's own reader."""

from __future__ import annotations

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

from jobs.sweep.tensorboard import write_hparams
from plinth.storage import Storage
from plinth.sweep.records import Report, Status, TrialRecord
from tests.helpers.sweep_folder import JEPA, LR, MODE, RANK, asha_sweep, sweep, trial


def read(storage: Storage, name: str) -> EventAccumulator:
    found = EventAccumulator(f"{storage.uri}/tensorboard/{name}")
    found.Reload()
    return found


def hparams(found: EventAccumulator) -> dict[str, float | str]:
    content = found.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    values = metadata.parse_session_start_info_plugin_data(content).hparams
    return {key: getattr(value, value.WhichOneof("kind")) for key, value in values.items()}


def columns(found: EventAccumulator) -> set[str]:
    content = found.SummaryMetadata(metadata.EXPERIMENT_TAG).plugin_data.content
    return {info.name for info in metadata.parse_experiment_plugin_data(content).hparam_infos}


def test_hparams_writes_one_event_file_per_trial(tmp_path: Path) -> None:
    storage = asha_sweep(tmp_path)
    write_hparams(storage)
    before = {key for key, _ in storage.list()}
    write_hparams(storage)
    files = [key for key, _ in storage.list("tensorboard")]
    assert len(files) == 12
    assert {key for key, _ in storage.list()} == before


def test_hparams_values_columns_and_curves(tmp_path: Path) -> None:
    storage = asha_sweep(tmp_path)
    write_hparams(storage)
    best, other = read(storage, "009"), read(storage, "002")
    assert hparams(best) == {LR: pytest.approx(0.00056949, rel=1e-4), JEPA: pytest.approx(0.9426, abs=1e-4),
                             MODE: "lora", RANK: 7.0}  # fmt: skip
    assert set(hparams(other)) == {LR, JEPA, MODE}
    assert columns(best) == columns(other) == {LR, JEPA, MODE, RANK}
    curve = best.Scalars("view")
    assert [event.step for event in curve] == list(range(800, 6401, 800))
    (top,) = best.Scalars("best/view")
    assert top.value == pytest.approx(min(event.value for event in curve))


def test_hparams_columns_have_one_type_and_trials_without_reports_are_kept(tmp_path: Path) -> None:
    storage = sweep(tmp_path, 3)
    trial(storage, TrialRecord(0, {"a": None, "b": True, "c": 1}, Status.waiting), [])
    nan = [Report("main", 1, 32, 1.0, {"view": float("nan")})]
    trial(storage, TrialRecord(1, {"a": 0.5, "b": False, "c": 2.5}, Status.failed), nan)
    body = storage.read("sweep.yaml").decode().split("sweep:\n")[0]
    storage.write("sweep.yaml", body.encode())
    write_hparams(storage)
    assert hparams(read(storage, "000")) == {"a": "null", "b": "true", "c": 1.0}
    found = read(storage, "001")
    assert hparams(found) == {"a": "0.5", "b": "false", "c": 2.5}
    assert found.Tags()["scalars"] == []
