"""The bound on a job's memory is above its plan, and is not given where it might not be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from jobs.jobfile import read
from jobs.plan import bound
from jobs.plan.bound import LEAST_WIDTHS_OF_RANK, SHARED_GRADIENTS, WHOLE_GRADIENTS, at_most
from jobs.plan.data import data_facts
from jobs.plan.estimate import PAPERS_TOWER, plan, workers_of
from jobs.plan.memory import memory
from jobs.pretrain.config import PretrainJob
from plinth.engine.config import Precision, ZeroConfig
from poma3d.cost.activations import Activations, meta_stage, outline, stage_size
from poma3d.network.config import LORA_TARGETS, EncoderConfig, LossConfig, ModelConfig, TuningConfig
from poma3d.sample import SampleShape
from tests.helpers.tiny_jobs import make_data, pretrain_job, write

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> PretrainJob:
    made = tmp_path_factory.mktemp("bound")
    make_data(made)
    found: PretrainJob = read(Path(write(made / "job.yaml", pretrain_job(made)))).resolve(PretrainJob)
    return found


@pytest.mark.parametrize("precision", Precision)
@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.parametrize("micro_batch", [1, 2])
def test_no_plan_is_above_the_bound(
    job: PretrainJob, micro_batch: int, stage: int, precision: Precision
) -> None:
    zero = replace(job.zero, stage=stage, precision=precision)
    assert job.warmup is not None
    assert job.main is not None
    warmup = replace(job.warmup, micro_batch_size=micro_batch)
    changed = replace(job, zero=zero, warmup=warmup, main=replace(job.main, micro_batch_size=micro_batch))
    most, planned = at_most(changed, [workers_of(changed)]), plan(changed, None, 1.0, []).stages
    peaks = [one.memory.peak for each in planned for one in each.zero if one.stage == stage]
    assert len(peaks) == 2
    assert most is not None
    assert max(peaks) <= most[0]


def test_adapters_of_a_high_rank_are_counted(job: PretrainJob) -> None:
    job = replace(job, model=ModelConfig(encoder=EncoderConfig(tuning=TuningConfig(rank=1000))))
    assert at_most(job, [1]) is None


def test_data_that_do_not_fit_the_model_are_no_traceback(
    job: PretrainJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A newer version of the data than the one that a resumed run has pinned may have another size."""

    def of_another_size(*arguments: object) -> object:
        facts = data_facts(*arguments)  # type: ignore[arg-type]
        return replace(facts, shape=replace(facts.shape, height=facts.shape.height + 1))

    monkeypatch.setattr(bound, "data_facts", of_another_size)
    assert at_most(job, [1]) is None


@pytest.mark.parametrize(
    ("stage", "precision"),
    [(0, Precision.fp32), *((stage, precision) for stage in (1, 2, 3) for precision in Precision)],
)
def test_adapters_take_less_than_all_weights(stage: int, precision: Precision) -> None:
    tower = replace(PAPERS_TOWER, layers=4)
    rank = tower.width // LEAST_WIDTHS_OF_RANK
    tuning = TuningConfig(mode="lora", rank=rank, targets=list(LORA_TARGETS))
    model = ModelConfig(encoder=EncoderConfig(tuning=tuning))
    shape = SampleShape(2, *tower.image_size, embedding=tower.joint)
    nothing = Activations({}, 0, 0, 0)
    adapters = stage_size(meta_stage("main", model, LossConfig(), shape, outline(tower)))
    model.encoder.tuning.mode = "full"
    all_weights = stage_size(meta_stage("main", model, LossConfig(), shape, outline(tower)))
    for bucket in (1_000_000, ZeroConfig().bucket_size):
        zero = ZeroConfig(stage=stage, precision=precision, bucket_size=bucket)
        bounded = WHOLE_GRADIENTS if stage == SHARED_GRADIENTS else stage
        for workers in (1, 2, 8, 64, 512):
            held = memory(adapters, nothing, zero, stage, workers, 1).peak
            assert held <= memory(all_weights, nothing, zero, bounded, workers, 1).peak
