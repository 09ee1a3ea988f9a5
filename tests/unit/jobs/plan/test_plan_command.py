"""`poma plan`: what it says of a job with its data and without, and its refusals in one line."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.cli import main
from jobs.jobfile import load
from jobs.plan import estimate as plans
from jobs.plan import report
from jobs.plan.machines import read_cluster
from jobs.pretrain.config import PretrainJob
from plinth.errors import ConfigError
from poma3d.cost.flops import stage_flops
from tests.helpers.snapshots import assert_snapshot
from tests.helpers.tiny_jobs import pretrain_job, write

ROOT = Path(__file__).parents[4]
CLUSTERS = ROOT / "clusters"
PRETRAIN = ROOT / "jobs/configs/pretrain.yaml"
GIVEN = [
    "output=runs", "teacher.revision=x", "warmup=null", "main.data.sources=[{uri: nowhere}]",
]  # fmt: skip


def planned(
    *overrides: str, cluster: str = "aws-h100", assume: tuple[str, ...] = ()
) -> plans.JobPlan[plans.StagePlan]:
    job = load(PretrainJob, PRETRAIN, [*GIVEN, *overrides])
    return plans.plan(job, read_cluster(CLUSTERS / f"{cluster}.yaml"), 0.4, list(assume))


@pytest.fixture(scope="module")
def paper() -> plans.JobPlan[plans.StagePlan]:
    """The main stage of the shipped job, its data not there yet."""
    return planned(assume=("main.samples=6500",))


def test_the_papers_model(paper: plans.JobPlan[plans.StagePlan]) -> None:
    (stage,) = paper.stages
    assert stage.data.shape.views == 32
    assert 180e6 < stage.size.parameters < 210e6, "two towers of 86 M, adapters, predictor"
    assert stage.size.trainable < 0.1 * stage.size.parameters
    assert stage.two_pass
    assert [zero.stage for zero in stage.zero] == [1, 2, 3], "bf16 has no stage 0"
    assert all(zero.largest is not None and zero.largest >= 3 for zero in stage.zero)


def test_time_is_work_over_speed(paper: plans.JobPlan[plans.StagePlan]) -> None:
    (stage,) = paper.stages
    pace = stage.pace
    assert pace is not None
    work = stage.flops.per_sample(True) * 48 / 8 + stage.flops.contrast(48)
    assert pace.step_s == pytest.approx(work / (0.4 * 989e12))
    assert pace.steps_per_epoch == math.ceil(6500 / 48)
    assert pace.steps == 100 * pace.steps_per_epoch
    assert pace.hours == pytest.approx(pace.steps * pace.step_s / 3600)


def test_cost_is_hours_times_nodes(paper: plans.JobPlan[plans.StagePlan]) -> None:
    table = yaml.safe_load((CLUSTERS / "prices.yaml").read_text())["machines"]
    hourly = sum(
        table[m]["on_demand"] * n for m, n in (("p5.48xlarge", 1), ("m7i.8xlarge", 2), ("m7i.2xlarge", 1))
    )
    assert paper.cost is not None
    assert paper.cost.hours == paper.stages[0].pace.hours  # type: ignore[union-attr]
    assert paper.cost.total == pytest.approx(paper.cost.hours * hourly)  # type: ignore[operator]


def test_storage_grows_with_the_gpus(paper: plans.JobPlan[plans.StagePlan]) -> None:
    (stage,) = paper.stages
    assert [s.gpus for s in stage.storage] == [8, 64, 512, 1024]
    first, last = stage.storage[0], stage.storage[-1]
    assert first.samples_per_s == pytest.approx(stage.pace.samples_per_s)  # type: ignore[union-attr]
    assert last.bytes_per_s == pytest.approx(128 * first.bytes_per_s)
    assert first.bytes_per_s == pytest.approx(first.samples_per_s * stage.data.bytes_per_sample)
    assert 20 * 1024 < stage.data.bytes_per_sample / 32 < 40 * 1024, (
        "about 22 KiB of depth a view, and embeddings"
    )


def test_fewer_workers_hold_more_each(paper: plans.JobPlan[plans.StagePlan]) -> None:
    (stage,) = paper.stages
    assert (stage.fewest, paper.workers) == (1, 8)
    at_eight = next(zero.memory.peak for zero in stage.zero if zero.stage == paper.job.zero.stage)
    assert stage.peak_at_fewest > at_eight
    assert "shrunk to 1 worker," in report.text(paper)


def test_report_of_the_shipped_job(paper: plans.JobPlan[plans.StagePlan]) -> None:
    text = report.text(paper).replace(str(ROOT), ".")
    assert_snapshot(text, Path(__file__).with_name("plan_report.txt"))


def test_more_nodes_than_the_file_allows_and_no_price() -> None:
    made = planned("fit.workers=16", cluster="gcp-a3", assume=("main.samples=6500",))
    assert made.cost is not None
    assert made.cost.nodes[0][1] == 2
    spot = read_cluster(CLUSTERS / "aws-a100.yaml")
    prices = {node.name: node.hourly for node in spot.workers}
    assert prices["gpu_spot"] is None
    assert prices["gpu_on_demand"]


def test_what_is_unknown_is_said(paper: plans.JobPlan[plans.StagePlan]) -> None:
    made = planned()
    text = report.text(made)
    assert "an unknown number of samples" in text
    assert "give --assume main.samples=N" in text
    assert made.cost is not None
    assert made.cost.total is None


def test_without_a_cluster_memory_alone(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On data that is there: sizes come from the manifests, the tower from the teacher's folder."""
    job = write(made / "plan.yaml", pretrain_job(made))
    assert main(["plan", job]) == 0
    text = capsys.readouterr().out
    assert "from the manifests" in text
    assert "8 samples of 2 views of 32 x 32" in text
    assert "unknown: name a cluster with GPUs" in text
    assert "cost" not in text


def test_flops_of_the_page_are_the_models(made: Path) -> None:
    from jobs.common.models import open_teacher
    from jobs.pretrain.build import build_stage

    job = load(PretrainJob, Path(write(made / "plan.yaml", pretrain_job(made))), [])
    main = plans.plan(job, None, 0.4, []).stages[1]
    tower = open_teacher(job.teacher, job.storage).image_tower()
    assert job.main is not None
    flops = stage_flops("main", job.model, job.main.loss, main.data.shape, tower, job.seed)
    assert main.flops == flops
    real = build_stage(job, "main", main.data.shape)
    assert main.size.parameters == sum(p.numel() for p in real.parameters())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--mfu", "2"], "--mfu is 2.0, expected a share in (0, 1]"),
        (["--assume", "main.rows=3"], "expected STAGE.samples=N"),
        (["--cluster", "clusters/nothing.yaml"], "no such file"),
        (["fit.workers=7"], "7 workers do not divide lanes 16"),
        ([f"teacher.source={CLUSTERS}"], "its config cannot be read"),
        (["main.global_batch_size=50"], "global_batch_size 50 is not a multiple of lanes 16"),
    ],
)
def test_refusals(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(PRETRAIN), *GIVEN, *words]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert says in lines[0]


def test_a_job_that_has_no_plan_is_not_sent_to_its_training(capsys: pytest.CaptureFixture[str]) -> None:
    for shipped, command in (("@features", "features"), ("@evaluate", "evaluate")):
        assert main(["plan", shipped]) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert f"is a job for `poma {command}`, which has no plan" in line
        assert "covers pretraining, finetuning, sweeps of pretraining and the demo" in line


def test_a_machine_without_a_row_is_named(tmp_path: Path) -> None:
    content: dict[str, Any] = yaml.safe_load((CLUSTERS / "prices.yaml").read_text())
    del content["machines"]["p5.48xlarge"]
    prices = tmp_path / "prices.yaml"
    prices.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=r"no machine p5\.48xlarge \(node type gpu_spot\)"):
        read_cluster(CLUSTERS / "aws-h100.yaml", prices)
    prices.write_text("currency: USD\nas_of: today\n")
    with pytest.raises(ConfigError, match="KeyError 'machines'"):
        read_cluster(CLUSTERS / "aws-h100.yaml", prices)


@pytest.mark.parametrize("name", ["local", "onprem", "aws-h100", "aws-a100", "gcp-a3", "gcp-a2"])
def test_every_cluster_file_is_read(name: str) -> None:
    cluster = read_cluster(CLUSTERS / f"{name}.yaml")
    train = cluster.train
    if name == "local":
        assert train is None
        return
    assert train is not None
    assert train.gpus == 8
    assert train.market == "on_demand"
    assert (train.name, train.most) == (("hosts", 2) if name == "onprem" else ("gpu_on_demand", 8))


def test_a_sweep_and_a_demo_can_be_planned(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = {"trials": 7, "space": {"optim.lr": {"log_uniform": [1e-5, 1e-3]}}}
    job = write(folder / "sweep.yaml", {**pretrain_job(folder), "kind": "sweep", "sweep": sweep})
    assert main(["plan", job]) == 0
    said = capsys.readouterr().out
    assert "main" in said
    assert "one trial of full length; the sweep has 7" in said
    monkeypatch.chdir(folder)
    assert main(["plan", "@demo"]) == 2
    assert "The demo's teacher, demo/teacher, is not there yet. Run `make demo`" in capsys.readouterr().err
    (folder / "demo").mkdir()
    (folder / "teacher").rename(folder / "demo" / "teacher")
    assert main(["plan", "@demo", "--assume", "main.samples=64", "--assume", "warmup.samples=64"]) == 0
    assert "main" in capsys.readouterr().out


def test_a_shipped_job_is_planned_before_its_data_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "@pretrain", "--assume", "main.samples=6500"]) == 0
    said = capsys.readouterr().out
    assert "6,500 samples" in said
    assert said.count("no data source is named") == 2
    assert main(["plan", "@pretrain", "main.data.lanes=7"]) == 2
    assert "not a multiple of lanes 7" in capsys.readouterr().err


def test_evaluation_beside_training_is_said() -> None:
    made = planned("evaluate_beside.data=held_out", "evaluate_beside.every=2", "checkpoint.every_steps=500")
    said = report.text(made).splitlines()[1]
    assert said.startswith("evaluate_beside: retrieval and probe of every 1,000 steps claim 1 CPU")
