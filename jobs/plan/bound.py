"""Whether a job of pretraining fits by so much that nobody has to count, before it starts.

`poma plan` counts what a worker holds. That loads transformers for the teacher's shape and traces the model:
a third of what the process that starts a run computes. Most runs are far below the memory of their machine.
"""

from __future__ import annotations

from dataclasses import replace

from jobs.common import models as teachers
from jobs.common.run_layout import STAGES
from jobs.plan.data import data_facts
from jobs.plan.memory import memory
from jobs.pretrain.config import PretrainJob, stage_config
from poma3d.cost.activations import meta_stage, outline, stage_size
from poma3d.cost.bound import most_activations
from poma3d.network.config import FULL, LORA

LEAST_WIDTHS_OF_RANK = 4
"""Adapters of a rank up to width / this take less, trained, than the weights do that they adapt."""


def at_most(job: PretrainJob, workers: int) -> int | None:
    """An upper bound on the bytes that each of `workers` holds in any stage; None without a teacher whose
    shape can be read directly, and for adapters of a high rank.

    Raises:
        PlinthError: a teacher that is not there, or is damaged.
    """
    teacher = teachers.outline_in_folder(job.teacher, job.storage)
    if teacher is None:
        return None
    model, encoder = job.model, job.model.encoder
    if (
        encoder.tuning.mode == LORA
    ):  # as if all weights were trained: adapters load peft, and that transformers
        if encoder.tuning.rank * LEAST_WIDTHS_OF_RANK > teacher.tower.shape.width:
            return None
        model = replace(model, encoder=replace(encoder, tuning=replace(encoder.tuning, mode=FULL)))
    most = 0
    for name in STAGES:
        stage = stage_config(job, name)
        if stage is None:
            continue
        data = data_facts(job, name, stage, teacher.tower.shape.joint, {})
        built = meta_stage(name, model, stage.loss, data.shape, outline(teacher.tower.shape))
        scenes = stage.global_batch_size
        pairs = (scenes * data.shape.views) ** 2 + scenes**2  # rows of the contrastive losses with each other
        held = memory(
            stage_size(built), most_activations(built), job.zero, job.zero.stage, workers,
            stage.micro_batch_size, pairs, two_pass=False,
        )  # fmt: skip
        most = max(most, held.peak)
    return most
