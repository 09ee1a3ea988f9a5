"""Checkpoints in storage: committed last, verified, retired; and weights for the next stage. That every
number comes back exactly is in tests/parity."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from plinth.checkpoint import save_load as checkpoint
from plinth.checkpoint import store
from plinth.checkpoint.config import CheckpointConfig
from plinth.engine import process
from plinth.errors import CheckpointError, ConfigError, StorageError
from plinth.storage import Storage
from tests.helpers.ranks import run_ranks
from tests.helpers.runs import Case, full_state, global_batches, local_rows, save_now, toy_engine
from tests.helpers.toy.stage import ToyStage

pytestmark = pytest.mark.slow
KEEP = 2


def train_and_save(folder: str, steps: int) -> None:
    """On all ranks: a checkpoint after each step, of which `KEEP` are kept."""
    proc = process.start(threads=1)
    engine = toy_engine(Case(2), proc)
    for batch in global_batches(steps):
        engine.step(local_rows(batch, proc.world))
        notes = {"step": engine.completed_steps}
        save_now(engine, Storage.from_uri(folder), Path(folder + "-scratch"), notes, KEEP)
    engine.close()


def load(folder: str) -> tuple[str, Any]:
    """On all ranks: the step that was loaded, or the error."""
    proc = process.start(threads=1)
    engine = toy_engine(Case(2), proc, ToyStage(seed=1))
    try:
        state = checkpoint.load(engine, Storage.from_uri(folder), Path(folder + "-scratch"))
        return "", None if state is None else (state["step"], state["notes"])
    except (CheckpointError, StorageError) as error:
        return str(error), None
    finally:
        engine.close()


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Four steps were trained at two ranks."""
    run_ranks(2, train_and_save, str(tmp_path / "run"), 4)
    return tmp_path / "run"


def damage(path: Path) -> None:
    """Flip a byte, keeping the size."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_only_the_newest_are_kept_and_scratch_is_empty(saved: Path) -> None:
    found = store.list_checkpoints(Storage.from_uri(saved))
    assert [(info.step, info.is_committed) for info in found] == [(3, True), (4, True)]
    assert store.latest(Storage.from_uri(saved)) == 4
    for info in found:
        files = {p.name: p.stat().st_size for p in (saved / info.name).iterdir()}
        assert sum(files.values()) == info.size_bytes
        assert len([name for name in files if name.endswith(".safetensors")]) == 2
    assert list(Path(f"{saved}-scratch").iterdir()) == []


def test_commit_record_names_every_file(saved: Path) -> None:
    record = json.loads((saved / "step-00000004" / "COMMIT.json").read_text())
    names = {p.name for p in (saved / "step-00000004").iterdir()}
    assert set(record["files"]) == names - {"COMMIT.json"}
    assert record["step"] == 4


def test_checkpoint_state_has_step_shapes_and_versions(saved: Path) -> None:
    state = store.read_state(Storage.from_uri(saved))
    assert state["notes"] == {"step": 4}
    assert state["written_by"] == {"world_size": 2, "zero_stage": 2, "precision": "fp32"}
    assert state["shapes"]["master/encoder.patch.weight"] == [20, 12]
    assert state["versions"]["torch"] == torch.__version__
    assert [g["name"] for g in state["groups"]] == ["decayed", "others"]
    assert "encoder.norm.bias" in state["groups"][1]["params"]
    with pytest.raises(CheckpointError, match=r"no committed checkpoint of step 2\. There are: 3, 4"):
        store.read_state(Storage.from_uri(saved), step=2)


@pytest.mark.parametrize("world_size", [1, 2])
def test_damaged_checkpoint_is_skipped(saved: Path, world_size: int) -> None:
    assert run_ranks(world_size, load, str(saved))[0] == ("", (4, {"step": 4}))
    damage(next((saved / "step-00000004").glob("*.safetensors")))
    for outcome in run_ranks(world_size, load, str(saved)):
        assert outcome == ("", (3, {"step": 3}))


def test_record_that_cannot_be_renamed_is_said_on_all_ranks(saved: Path) -> None:
    damage(next((saved / "step-00000004").glob("*.safetensors")))
    (saved / "step-00000004" / store.DAMAGED_KEY / "in the way").mkdir(parents=True)
    told = [message for message, _ in run_ranks(2, load, str(saved))]
    assert told[0]
    assert told[1] == told[0]


def test_an_uncommitted_one_is_skipped_and_a_run_without_any_starts_anew(saved: Path) -> None:
    (saved / "step-00000004" / "COMMIT.json").unlink()
    assert store.latest(Storage.from_uri(saved)) == 3
    assert run_ranks(1, load, str(saved))[0] == ("", (3, {"step": 3}))
    (saved / "step-00000003" / "COMMIT.json").unlink()
    assert run_ranks(1, load, str(saved))[0] == ("", None)


def test_when_all_are_damaged_nothing_starts_silently(saved: Path) -> None:
    damage(next((saved / "step-00000004").glob("*.safetensors")))
    next((saved / "step-00000003").glob("*.safetensors")).unlink()
    message, _ = run_ranks(1, load, str(saved))[0]
    assert "has no whole checkpoint" in message
    assert "is not what was written" in message
    assert re.search(r"step-00000003/\S+ is missing", message)


def test_saving_again_replaces_a_broken_one_of_the_same_step(saved: Path) -> None:
    damage(next((saved / "step-00000004").glob("*.safetensors")))
    run_ranks(1, train_and_save, str(saved), 4)  # another world size: other file names
    assert run_ranks(2, load, str(saved))[0] == ("", (4, {"step": 4}))


class Wider(ToyStage):
    """The toy stage with another predictor and one more parameter."""

    def __init__(self) -> None:
        super().__init__(seed=7)
        self.predictor = torch.nn.Linear(8, 8, bias=False)
        self.unused = torch.nn.Parameter(torch.ones(5, 2))
        self.extra = torch.nn.Parameter(torch.zeros(2, 2))


def take_weights(folder: str, case: Case) -> Any:
    """On all ranks: what a stage of another shape took, and its state before and after."""
    proc = process.start(threads=1)
    engine = toy_engine(case, proc, Wider())
    before = full_state(engine)
    report = checkpoint.load_weights(engine, Storage.from_uri(folder), Path(folder + "-scratch"))
    after = full_state(engine)
    loss = engine.step(local_rows(global_batches(1)[0], proc.world)).loss
    engine.close()
    return report, before, after, loss


def test_load_weights_takes_parameters_that_fit(saved: Path) -> None:
    full = checkpoint.read_full(Storage.from_uri(saved), Path(f"{saved}-scratch"))
    losses = []
    for case in (Case(0), Case(2), Case(3), Case(3, precision="bf16")):
        report, before, after, loss = run_ranks(2, take_weights, str(saved), case)[0]
        assert report.step == 4
        assert report.missing == ["extra"]
        assert report.reshaped == ["unused"]
        assert report.unused == ["predictor.bias"]
        for name in report.loaded:
            key = f"master/{name}" if f"master/{name}" in after else f"frozen/{name}"
            expected = full[name].flatten().to(after[key].dtype)
            assert torch.equal(after[key], expected), (case, name)
        for name in ("extra", "unused"):
            assert torch.equal(after[f"master/{name}"], before[f"master/{name}"])
        for source, target in ToyStage().ema_pairs().items():  # the target copy starts as a copy
            assert torch.equal(after[f"ema/{target}"], after[f"master/{source}"])
        assert all(not v.any() for k, v in after.items() if k.startswith("exp_avg"))
        losses.append(loss)
    assert losses[:3] == pytest.approx([losses[0]] * 3, abs=1e-6)
    assert losses[3] == pytest.approx(losses[0], abs=0.05)


def take_from_nothing(folder: str) -> str:
    """On all ranks: the error where there is nothing to take."""
    proc = process.start(threads=1)
    engine = toy_engine(Case(2), proc)
    try:
        checkpoint.load_weights(engine, Storage.from_uri(folder), Path(folder + "-scratch"))
    except CheckpointError as error:
        return str(error)
    finally:
        engine.close()
    return ""


def load_into_wider(folder: str) -> str:
    """On all ranks: the error when the model is another."""
    proc = process.start(threads=1)
    engine = toy_engine(Case(2), proc, Wider())
    try:
        checkpoint.load(engine, Storage.from_uri(folder), Path(folder + "-scratch"))
    except CheckpointError as error:
        return str(error)
    finally:
        engine.close()
    return ""


def test_another_model_and_an_empty_run_are_refused(saved: Path, tmp_path: Path) -> None:
    assert (
        "has no committed checkpoint to start from"
        in run_ranks(1, take_from_nothing, str(tmp_path / "no"))[0]
    )
    message = run_ranks(1, load_into_wider, str(saved))[0]
    assert "of another model: exp_avg/extra has shape none in it and [2, 2] in this job" in message


@pytest.mark.parametrize(("key", "value"), [("every_steps", 0), ("keep_last", -1), ("keep_waiting", 0)])
def test_settings_out_of_range_are_refused(key: str, value: int) -> None:
    with pytest.raises(ConfigError, match=rf"checkpoint\.{key} is {value}"):
        CheckpointConfig(**{key: value}).validate()
