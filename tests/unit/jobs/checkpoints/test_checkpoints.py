"""`poma checkpoints`: verify, repair, prune and pin through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from jobs.cli import main
from plinth.checkpoint import store, upload
from plinth.engine.zero_shards import TensorShard
from plinth.storage import Storage
from plinth.world import World


@pytest.fixture
def run(tmp_path: Path) -> Storage:
    """A run whose main stage has checkpoints of steps 1 to 4, each of one tensor."""
    run = Storage.from_uri(tmp_path / "run")
    folder = run.child("main/checkpoints")
    for step in range(1, 5):
        shard = TensorShard("w", 4, 0, torch.full((4,), float(step)))
        state = {
            "step": step, "metrics": {"loss": 1.0}, "total_steps": 4, "notes": {"cursor": {"epoch": 0}},
            "written_by": {"world_size": 1, "zero_stage": 2, "precision": "fp32"},
        }  # fmt: skip
        upload.write_local(tmp_path / "local", step, f"t{step}", [shard], state, World(0, 1), "a run")
        upload.upload_part(folder, tmp_path / "local")
        assert upload.commit_if_whole(folder, step, f"t{step}")
    return run


def steps(run: Storage) -> set[int]:
    return {info.step for info in store.list_checkpoints(run.child("main/checkpoints"))}


def test_prune_keeps_the_newest_and_the_pinned(run: Storage) -> None:
    assert main(["checkpoints", "pin", run.uri, "main", "1", "--reason", "figure 3"]) == 0
    assert main(["checkpoints", "prune", run.uri, "--keep-last", "2", "--dry-run"]) == 0
    assert steps(run) == {1, 2, 3, 4}
    assert main(["checkpoints", "prune", run.uri, "--keep-last", "2"]) == 0
    assert steps(run) == {1, 3, 4}


def test_one_of_another_format_is_not_called_damaged_and_the_others_are_looked_at(
    run: Storage, capsys: pytest.CaptureFixture[str]
) -> None:
    key = f"main/checkpoints/{store.folder_name(2)}/{store.COMMIT_KEY}"
    other = json.dumps(json.loads(run.read(key)) | {"format_version": store.FORMAT_VERSION + 1}).encode()
    run.write(key, other)
    for action, code in (("verify", 2), ("repair", 0), ("list", 0)):
        assert main(["checkpoints", action, run.uri]) == code
        told = capsys.readouterr().out
        (line,) = [line for line in told.splitlines() if line.split()[:2] == ["main", "2"]]
        assert f"has format version {store.FORMAT_VERSION + 1}, this program reads" in line
        assert "damaged" not in told.lower()
        assert action == "repair" or "main 4" in " ".join(told.split())
    assert run.read(key) == other, "repair leaves it as it is"


def test_damage_is_exit_code_2_until_it_is_repaired(run: Storage, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["checkpoints", "pin", run.uri, "main", "4", "--reason", "figure 3"]) == 0
    assert main(["checkpoints", "verify", run.uri]) == 0
    folder = run.child("main/checkpoints").child(store.folder_name(4))
    name = next(key for key, _ in folder.list() if key.endswith(".safetensors"))
    folder.write(name, folder.read(name)[:-1] + b"\xff")
    assert main(["checkpoints", "verify", run.uri]) == 2
    assert main(["checkpoints", "repair", run.uri]) == 0
    assert main(["checkpoints", "verify", run.uri]) == 0
    assert 3 in steps(run)
    capsys.readouterr()
    assert main(["checkpoints", "list", run.uri]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.split()[:2] == ["main", "4"]]
    assert "damaged" in line, "not merely unfinished"
    assert line.endswith("pinned")
