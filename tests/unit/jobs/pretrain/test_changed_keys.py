"""A job that has changed since its last checkpoint: every key that is named is one that its file can hold."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from jobs.finetune.config import FinetuneJob
from jobs.finetune.llm.config import FinetuneLlmJob
from jobs.finetune.llm.resolve import resolve as resolve_llm
from jobs.finetune.resolve import resolve as resolve_head
from jobs.jobfile import load
from jobs.pretrain.config import PretrainJob
from jobs.pretrain.resolve import resolve as resolve_pretraining
from plinth import config
from plinth.errors import CheckpointError
from plinth.train.resolve import ResolvedStage
from tests.helpers.downstream.heads import finetune_job
from tests.helpers.downstream.llm_jobs import job_of
from tests.helpers.tiny_jobs import pretrain_job, write

COMMON = {
    "seed": 1, "optim.beta1": 0.5, "optim.weight_decay": 0.5, "optim.grad_clip": 0.5, "zero.stage": 3,
    "zero.exact_sums": "false",
}  # fmt: skip
"""Key -> another value, of every job."""


def of_stage(name: str) -> dict[str, Any]:
    """The same of a stage with a rate and a warm-up of its own."""
    keys = {"lr": 0.5, "warmup_steps": 0, "steps": 3, "global_batch_size": 16, "micro_batch_size": 1}
    return {f"{name}.{key}": value for key, value in keys.items()} | {
        f"{name}.data.lanes": 4, f"{name}.data.window_row_groups": 3,
    }  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """A kind of job, what of it may change, and how it is resolved."""

    schema: Any
    file: dict[str, Any]
    stage: str
    changes: dict[str, Any]
    resolve: Callable[[Any], Sequence[ResolvedStage]]


@pytest.fixture(params=["pretrain", "finetune", "finetune_llm"])
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> Kind:
    made = {"pretrain": "made", "finetune": "prepared", "finetune_llm": "llm_home"}[request.param]
    home: Path = request.getfixturevalue(made)
    if request.param == "pretrain":
        changes = {"model.augment.rotate_z_degrees": 5, "main.loss.jepa": 0.1, "model.masks.min_context": 1}
        file = pretrain_job(home, output=str(tmp_path))
        return Kind(PretrainJob, file, "main", changes, resolve_pretraining)
    if request.param == "finetune":
        changes = {
            "qa.text_joiner": "-", "qa.situations": "main", "head.hidden": 16, "text.max_tokens": 4,
            "text.train": "false", "shuffle_scenes": "true",
        }  # fmt: skip
        file = finetune_job(home) | {"output": str(tmp_path / "runs")}
        return Kind(FinetuneJob, file, "heads", changes, lambda job: [resolve_head(job).stage])
    changes = {
        "llm.loss": "samples", "llm.lora.rank": 4, "scene.cell_m": 0.25, "scene.projector_lr": 0.5,
        "chat.text_joiner": "-",
    }  # fmt: skip
    return Kind(
        FinetuneLlmJob, job_of(home, tmp_path), "training", changes, lambda job: [resolve_llm(job).stage]
    )


def job_of_kind(kind: Kind, folder: Path, *overrides: str) -> Any:
    own = {**kind.file[kind.stage], "lr": 0.01, "warmup_steps": 1}
    return load(kind.schema, Path(write(folder / "job.yaml", kind.file | {kind.stage: own})), overrides)


def resolved(kind: Kind, folder: Path, *overrides: str) -> ResolvedStage:
    job = job_of_kind(kind, folder, *overrides)
    return next(stage for stage in kind.resolve(job) if stage.name == kind.stage)


def named(before: ResolvedStage, after: ResolvedStage) -> list[str]:
    """The keys in the refusal to resume."""
    assert after.check_resume is not None
    with pytest.raises(CheckpointError) as caught:
        after.check_resume(before.notes, after.notes)
    listed = str(caught.value).split("last checkpoint: ")[1].split(". Go back")[0]
    return [re.split(r" \(| was ", part)[0] for part in listed.split("; ")]


def test_the_keys_that_were_changed_are_named(kind: Kind, tmp_path: Path) -> None:
    changes = {**COMMON, **of_stage(kind.stage), **kind.changes}
    after = resolved(kind, tmp_path, *(f"{key}={value}" for key, value in changes.items()))
    assert sorted(named(resolved(kind, tmp_path), after)) == sorted(changes)


def test_every_key_that_can_be_named_is_one_of_the_job(kind: Kind, tmp_path: Path) -> None:
    now = resolved(kind, tmp_path)
    kept = [key for key, _, _ in config.changed_keys({"seed": None}, now.notes["config"])]
    assert len(kept) > 20
    names = now.check_resume.keywords["names"]  # type: ignore[union-attr]
    sections = config.to_dict(job_of_kind(kind, tmp_path))
    for key in kept:
        here = names.label(key).split(" (")[0]
        value: Any = sections
        for part in here.split("."):
            if value is None:
                break  # a section that the defaults leave out
            assert part in value, f"{key} is named {here}, which no such job has"
            value = value[part]


def test_a_rate_is_named_where_it_is_said(kind: Kind, tmp_path: Path) -> None:
    before = resolved(kind, tmp_path)
    assert named(before, resolved(kind, tmp_path, f"{kind.stage}.lr=null", "optim.lr=0.5")) == ["optim.lr"]
    in_samples = [f"{kind.stage}.steps=null", f"{kind.stage}.samples=80"]
    assert named(before, resolved(kind, tmp_path, *in_samples)) == [f"{kind.stage}.samples"]
