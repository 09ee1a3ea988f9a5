"""Both stages in bf16, through the real entry point: the loss falls, and a resumed run has the same bits."""

from __future__ import annotations

import shutil
import statistics
from pathlib import Path

import pytest
import torch

from jobs.cli import main
from plinth.checkpoint import save_load
from plinth.observe.step_lines import read_lines
from plinth.storage import Storage
from tests.helpers.tiny_jobs import pretrain_job, write

STEPS, EVERY, AROUND = 16, 8, 4


def trained(folder: Path, made: Path) -> Path:
    """Train to the end, or resume; returns the run's folder."""
    changes = {"zero": {"stage": 2, "precision": "bf16"}, "optim": {"lr": 3e-3}}
    job = pretrain_job(made, output=str(folder), checkpoint={"every_steps": EVERY, "keep_last": 0}, **changes)
    for stage in ("warmup", "main"):
        job[stage]["steps"] = STEPS
    folder.mkdir(exist_ok=True)
    assert main(["pretrain", write(folder / "job.yaml", job)]) == 0
    return folder / "run"


def losses(run: Path, stage: str) -> list[float]:
    return [line["loss"] for line in read_lines(Storage.from_uri(run / stage))]


@pytest.mark.slow
def test_both_stages_learn_in_bf16_and_resume_to_the_same_bits(made: Path, tmp_path: Path) -> None:
    straight = trained(tmp_path / "straight", made)
    for stage in ("warmup", "main"):
        found = losses(straight, stage)
        assert len(found) == STEPS
        assert statistics.mean(found[-AROUND:]) < statistics.mean(found[:AROUND]), stage

    resumed = tmp_path / "resumed" / "run"
    shutil.copytree(straight, resumed)
    shutil.rmtree(resumed / "main" / "checkpoints" / f"step-{STEPS:08d}")
    assert trained(tmp_path / "resumed", made) == resumed

    assert losses(resumed, "main") == losses(straight, "main")
    one, other = (
        save_load.read_full(Storage.from_uri(run / "main" / "checkpoints"), tmp_path / "scratch")
        for run in (straight, resumed)
    )
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    # Masters and averages are fp32: bf16 alone would leave the lower 16 bits of each empty.
    trained_name = next(name for name in one if "lora" in name)
    assert (one[trained_name].float().view(torch.int32) & 0xFFFF).any()
