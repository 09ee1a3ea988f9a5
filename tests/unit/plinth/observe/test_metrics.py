"""Metrics: the files, a resumed run, the terminal line."""

from __future__ import annotations

import hashlib
import json
import logging
import resource
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.metadata import EXPERIMENT_TAG, SESSION_START_INFO_TAG
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from plinth.data.assemble import LocalBatch
from plinth.data.plan import Cursor
from plinth.engine.engine import StepResult
from plinth.engine.process import Process
from plinth.errors import ConfigError
from plinth.observe.config import MetricsConfig
from plinth.observe.metrics import MetricsWriter, duration, progress_line, record_step, told
from plinth.observe.step_lines import read_lines
from plinth.storage import Storage
from plinth.world import World
from tests.helpers.metrics import step_record


def write(
    folder: Path, steps: range, first_step: int = 0, close: bool = True, marker: str = "a"
) -> MetricsWriter:
    """A run that writes `steps`; without `close` it dies after its last sync."""
    writer = MetricsWriter(
        MetricsConfig(progress_every_s=1e9), Storage.from_uri(folder / "run"), folder / f"local-{marker}",
        "toy", first_step, 100,
    )  # fmt: skip
    for step in steps:
        writer.step(step_record(step, digest=f"{marker}{step}"))
    writer.flush()
    writer.sync()
    if close:
        writer.close()
    return writer


def scalars(folder: Path, tag: str) -> dict[int, float]:
    board = EventAccumulator(str(folder / "run" / "tensorboard"))
    board.Reload()
    return {event.step: event.value for event in board.Scalars(tag)}


def test_one_line_a_step(tmp_path: Path) -> None:
    write(tmp_path, range(3))
    lines = read_lines(Storage.from_uri(tmp_path / "run"))
    assert [line["step"] for line in lines] == [0, 1, 2]
    assert lines[1]["terms"] == {"view": 1.0}
    assert lines[1]["digest"] == "a1"
    assert not (tmp_path / "local-a").exists()


def test_tensorboard_has_every_number(tmp_path: Path) -> None:
    write(tmp_path, range(3))
    assert scalars(tmp_path, "loss/total") == pytest.approx({0: 2.0, 1: 1.0, 2: 2 / 3})
    for tag, value in {
        "loss/view": 1.0, "stage/std": 0.5, "optimizer/lr": 1e-3, "optimizer/grad_norm": 0.25,
        "speed/samples_per_s": 16.0, "speed/samples_per_s_per_worker": 8.0, "speed/step_s": 0.5,
        "speed/data_wait_share": 0.2, "memory/bytes": 10.0,
    }.items():  # fmt: skip
        assert scalars(tmp_path, tag)[2] == pytest.approx(value), tag


def test_resumed_metrics_repeat_no_step(tmp_path: Path) -> None:
    write(tmp_path, range(6), close=False)
    write(tmp_path, range(4, 8), first_step=4, marker="b")
    lines = read_lines(Storage.from_uri(tmp_path / "run"))
    assert [line["step"] for line in lines] == list(range(8))
    assert [line["digest"] for line in lines] == ["a0", "a1", "a2", "a3", "b4", "b5", "b6", "b7"]
    assert sorted(scalars(tmp_path, "loss/total")) == list(range(8))


def test_torn_lines_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    storage = Storage.from_uri(tmp_path)
    storage.write(
        "metrics.jsonl", '{"step": 0, "note": "a\u2028b"}\n{"st\n7\n{"step": 1}\n{"step": 2, "lo'.encode()
    )
    assert [line["step"] for line in read_lines(storage)] == [0, 1]
    assert "metrics.jsonl: 3 torn lines are left out" in caplog.text


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_full_disk_costs_no_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As far as a limit of the size of files is one."""
    writer = write(tmp_path, range(3), close=False)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, before[1]))
    try:
        for step in range(3, 6):
            writer.step(step_record(step))
            writer.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    writer.step(step_record(6))
    writer.flush()  # TensorBoard begins anew
    writer.step(step_record(7))
    writer.close()
    assert [line["step"] for line in read_lines(Storage.from_uri(tmp_path / "run"))] == list(range(8))
    assert caplog.text.count("cannot be written to") == 1
    assert 7 in scalars(tmp_path, "loss/total")


def test_new_run_drops_earlier_metrics(tmp_path: Path) -> None:
    write(tmp_path, range(6), close=False)
    write(tmp_path, range(2), marker="b")
    assert [line["step"] for line in read_lines(Storage.from_uri(tmp_path / "run"))] == [0, 1]


def test_steps_in_tensorboard_continue_those_of_the_stage_before(tmp_path: Path) -> None:
    """Also of a run that resumes: what it repeats is hidden."""
    storage = Storage.from_uri(tmp_path / "run")
    for marker, steps in (("a", range(6)), ("b", range(4, 8))):
        writer = MetricsWriter(
            MetricsConfig(progress_every_s=1e9), storage, tmp_path / marker, "main", steps[0], 100,
            steps_before=40,
        )  # fmt: skip
        for step in steps:
            writer.step(step_record(step, loss=float(f"{step}.{len(marker)}")))
        writer.ledger({"productive": 0.5}, steps[-1])
        writer.pictures({"views": np.zeros((4, 6, 3), np.uint8)}, steps[-1])
        writer.close()
    assert sorted(scalars(tmp_path, "loss/total")) == list(range(40, 48))
    assert list(scalars(tmp_path, "time/productive"))[-1] == 47
    board = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    board.Reload()
    assert board.Images("views")[-1].step == 47
    assert [line["step"] for line in read_lines(storage)] == list(range(8)), "the lines keep the stage's own"


def test_tensorboard_has_the_job_and_its_hyperparameters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLANTED_SECRET", "pl4nted-s3cret")
    writer = write(tmp_path, range(2), close=False)
    deciding = {"optim": {"lr": 1e-3, "betas": [0.9, 0.95]}, "start": None, "exact": True, "on": "```rooms"}
    writer.settings({**deciding, "metrics": {"note": "pl4nted-s3cret"}}, deciding)
    writer.close()
    board = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    board.Reload()
    (event,) = board.Tensors("job/text_summary")
    text = event.tensor_proto.string_val[0].decode()
    assert all(line.startswith("    ") for line in text.splitlines()), "a block that no value ends"
    assert yaml.safe_load(text) == {**deciding, "metrics": {"note": "***"}}
    found = HParamsPluginData.FromString(
        board.summary_metadata[SESSION_START_INFO_TAG].plugin_data.content
    ).session_start_info.hparams
    shown = {key: getattr(value, value.WhichOneof("kind")) for key, value in found.items()}
    assert shown == {
        "optim.lr": 1e-3, "optim.betas": "[0.9, 0.95]", "start": "null", "exact": True, "on": "```rooms",
    }  # fmt: skip
    (metric,) = HParamsPluginData.FromString(
        board.summary_metadata[EXPERIMENT_TAG].plugin_data.content
    ).experiment.metric_infos
    assert metric.name.tag in board.Tags()["scalars"]


def test_pictures_are_kept(tmp_path: Path) -> None:
    writer = write(tmp_path, range(1), close=False)
    writer.pictures({"views": np.full((4, 6, 3), 200, np.uint8)}, step=0)
    writer.close()
    board = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    board.Reload()
    (image,) = board.Images("views")
    assert (image.width, image.height) == (6, 4)


def test_json_has_no_nan(tmp_path: Path) -> None:
    writer = write(tmp_path, range(0), close=False)
    writer.step(step_record(0, logs={"rank": float("nan")}))
    writer.close()
    text = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert json.loads(text, parse_constant=pytest.fail)["logs"] == {"rank": None}


def test_progress_line() -> None:
    recent = [step_record(step, step_s=1.0, data_wait_s=0.25) for step in range(18, 20)]
    line = progress_line("main", recent, total_steps=80)
    assert line == (
        "main 20/80  epoch 4  loss 0.1000  view 1.000  lr 1.00e-03  8.0 samples/s  data wait 25%  60 s left"
    )


def test_progress_is_shown_at_the_end_even_when_it_is_early(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="plinth"):
        write(tmp_path, range(98, 100), first_step=98)
    assert [message.split()[1] for message in caplog.messages] == ["100/100"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (89, "89 s"), (600, "10 min"), (7200, "2 h 0 min"), (12000, "3 h 20 min")],
)
def test_durations_are_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"metrics\.details_every_steps is 0, expected 1 or more"):
        MetricsConfig(details_every_steps=0).validate()


def test_what_ranks_tell_becomes_the_record() -> None:
    keys = [torch.tensor([3, -(2**63)]), torch.tensor([2**63 - 1, -1])]
    batches = [LocalBatch({"sample_key": k}, Cursor(1, 4), Cursor(1, 5), [], wait_s=0.25) for k in keys]
    of_ranks = np.stack([told(batch, 0.5 + rank) for rank, batch in enumerate(batches)])
    result = StepResult(7, 2.0, {"view": 1.0}, {}, 0.5, 1e-3)
    process = Process(World(0, 2), torch.device("cpu"), 1, "here")
    record = record_step(result, of_ranks, batches[0], process, 4, time.perf_counter(), 0.0, 0.75)
    digest = hashlib.blake2b(torch.cat(keys).numpy().tobytes(), digest_size=8).hexdigest()
    assert record.digest == digest, "of the keys of the global batch, in order"
    assert record.ranks == {"data_wait_s": [0.25, 0.25], "compute_s": [0.5, 1.5]}
    assert (record.step, record.loss, record.terms, record.compute_s) == (7, 2.0, {"view": 1.0}, 0.75)
    assert (record.epoch, record.step_in_epoch, record.samples) == (1, 4, 4)
    alone = record_step(result, of_ranks[:1], batches[0], process, 2, time.perf_counter(), 0.0)
    assert alone.ranks == {}
