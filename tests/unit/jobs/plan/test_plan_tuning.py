"""`poma plan` of heads and language models: what it says with the data and without, and its refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from jobs.cli import main
from jobs.finetune.config import FinetuneJob
from jobs.finetune.llm.config import FinetuneLlmJob
from jobs.finetune.llm.resolve import resolve
from jobs.jobfile import load
from jobs.plan import heads, language, report
from jobs.plan.machines import read_cluster
from jobs.plan.tuning import TuningPlan
from poma3d.heads.config import HeadSceneConfig
from tests.helpers.downstream.heads import finetune_job
from tests.helpers.downstream.llm_jobs import NEW, job_of
from tests.helpers.tiny_jobs import write

ROOT = Path(__file__).parents[4]
CONFIGS, CLUSTERS = ROOT / "jobs/configs", ROOT / "clusters"
BF16 = {"zero": {"stage": 2, "precision": "bf16"}}


def planned(home: Path, folder: Path, **changes: Any) -> tuple[FinetuneLlmJob, TuningPlan]:
    job = load(FinetuneLlmJob, Path(write(folder / "llm.yaml", job_of(home, folder, **changes))), [])
    (stage,) = language.plan(job, read_cluster(CLUSTERS / "aws-h100.yaml"), 0.4, []).stages
    return job, stage


def test_parameters_are_those_of_the_stage_that_is_trained(llm_home: Path, tmp_path: Path) -> None:
    job, stage = planned(llm_home, tmp_path)
    spec = resolve(job).stage
    real = spec.build_stage(spec.mixture.sources)
    for part, module in (("language model", real.llm), ("projector", real.projector)):
        size, parameters = stage.parts[part], list(module.parameters())
        assert size.parameters == sum(p.numel() for p in parameters)
        assert size.trainable == sum(p.numel() for p in parameters if p.requires_grad)
    assert stage.samples == 110 + 0.5 * 8 + 0.5 * 16
    assert stage.origin.startswith("from the files; the encoder is frozen")


def test_parts_of_memory_follow_from_dtypes(llm_home: Path, tmp_path: Path) -> None:
    _, stage = planned(llm_home, tmp_path, **BF16)
    size = stage.size
    assert [zero.stage for zero in stage.zero] == [1, 2, 3]
    one, two, three = (zero.memory for zero in stage.zero)
    assert one.frozen == two.frozen == 2 * (size.parameters - size.trainable)
    assert two.trained == 2 * size.trainable
    assert two.gradients == 4 * size.trainable, "one worker, sums in fp32"
    assert two.optimizer == (4 + 8) * size.trainable
    assert three.frozen == one.frozen, "one worker holds all"
    assert two.peak >= two.resident + two.activations


def test_checkpointing_trades_memory_for_operations(llm_home: Path, tmp_path: Path) -> None:
    (_, plain), (_, again) = (
        planned(llm_home, tmp_path, llm={**job_of(llm_home, tmp_path)["llm"], "gradient_checkpointing": on})
        for on in (False, True)
    )
    assert again.zero[0].memory.activations < plain.zero[0].memory.activations
    assert again.work - plain.work == pytest.approx(again.passes["blocks again"])
    assert again.lengths == plain.lengths
    short, own, long = own_lengths = [one.tokens for one in plain.lengths]
    assert own_lengths == sorted({short, own, long})
    assert [one.is_jobs for one in plain.lengths] == [False, True, False]
    assert all(one.again.of(1) < one.kept.of(1) for one in plain.lengths)
    micro = plain.micro_batch_size
    assert plain.lengths[1].kept.of(micro) == plain.zero[0].memory.activations
    text = report.text_of_tuning(language.plan(load_of(llm_home, tmp_path), None, 0.4, []))
    assert "(llm.gradient_checkpointing)" in text


def load_of(home: Path, folder: Path, **changes: Any) -> FinetuneLlmJob:
    return load(FinetuneLlmJob, Path(write(folder / "llm.yaml", job_of(home, folder, **changes))), [])


def test_an_encoder_and_a_model_of_new_weights(llm_home: Path, tmp_path: Path) -> None:
    job = job_of(llm_home, tmp_path, llm=NEW, encoder={"source": str(llm_home / "encoder")})
    del job["train"]["features"]
    loaded = load(FinetuneLlmJob, Path(write(tmp_path / "new.yaml", job)), [])
    plan = language.plan(loaded, None, 0.4, [])
    (stage,) = plan.stages
    assert list(stage.parts) == ["language model", "encoder", "projector"]
    assert all(0 < size.trainable <= size.parameters for size in stage.parts.values())
    assert stage.pace is None
    text = report.text_of_tuning(plan)
    assert "unknown: name a cluster with GPUs" in text
    assert "frozen" in text


def test_packed_rows_hold_several(llm_home: Path, tmp_path: Path) -> None:
    _, apart = planned(llm_home, tmp_path)
    longest = next(one.tokens for one in apart.lengths if one.is_jobs)
    _, packed = planned(llm_home, tmp_path, chat={"packed_tokens": 2 * longest + 3})
    assert f", 2 of the longest in a row of {2 * longest + 3}" in packed.each
    assert apart.work < packed.work < 2 * apart.work, "places of a row see all of it"


def test_the_shipped_job_needs_no_data_and_no_download(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--cluster", str(CLUSTERS / "aws-h100.yaml"), "--assume", "training.samples=26623"]
    assert main(["plan", str(CONFIGS / "llm_sqa3d.yaml"), *words]) == 0
    text = capsys.readouterr().out
    assert "llm-sqa3d: 8 workers" in text
    assert "26,623 conversations of at most" in text
    assert "the job does not name its data yet" in text
    assert "language model 1" in text, "1.7 thousand million parameters"
    assert "blocks again" in text
    assert "all stages" in text


def test_a_head(prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path / "qa.yaml", finetune_job(prepared) | {"output": str(tmp_path / "runs")})
    job = load(FinetuneJob, Path(file), [])
    (stage,) = heads.plan(job, None, 0.4, []).stages
    assert list(stage.parts) == ["text tower", "head"]
    assert stage.origin == "from the files; the encoder is frozen: its features are read"
    assert not list((tmp_path / "runs").rglob("*")), "nothing is written"
    assert main(["plan", file]) == 0
    assert "questions of at most" in capsys.readouterr().out


def test_the_shipped_heads_need_no_data_and_no_download(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(CONFIGS / "qa_sqa3d.yaml")]) == 0
    text = capsys.readouterr().out
    assert "text tower 109.5 M (108.9 M)" in text, "BERT without its pooler"


def test_a_head_of_cells_is_planned_as_such_without_data() -> None:
    words = ["text.source=google-bert/bert-base-uncased", "head.attention=guided"]
    job = load(FinetuneJob, CONFIGS / "navigation_rooms.yaml", words)
    views = replace(job, scene=HeadSceneConfig(), train=replace(job.train, scenes=[]), val=None)
    views = replace(views, val=views.train)
    of_cells, of_views = (heads.plan(each, None, 0.4, []).stages[0] for each in (job, views))
    assert "assumed, for ViT-B/16" in of_cells.origin
    more = of_cells.size.parameters - of_views.size.parameters
    wider = 2 * 768 - 512
    assert more == wider * (job.head.pool_hidden + job.head.pool_width) + 2 * 768, "and a norm"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["llm.source=nobody/nothing"], "llm.source nobody/nothing cannot be loaded"),
        (["fit.workers=7"], "7 workers do not divide"),
        (["llm.lora.targets=[nowhere]"], "the model has no layer nowhere"),
        (["--assume", "training.views=3"], "expected STAGE.samples=N with a number above 0"),
    ],
)
def test_refusals_are_one_line(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # read once, at the import
    assert main(["plan", str(CONFIGS / "llm_sqa3d.yaml"), *words]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert says in line
