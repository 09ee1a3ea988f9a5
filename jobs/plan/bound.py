"""Whether a job of pretraining fits by so much that nobody has to count, before it starts.

`poma plan` counts what a worker holds. That loads transformers for the teacher's shape and traces the model:
a third of what the process that starts a run computes. Most runs are far below the memory of their machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from jobs.common import models as teachers
from jobs.common.run_layout import STAGES
from jobs.plan.data import data_facts
from jobs.plan.memory import memory
from jobs.pretrain.config import PretrainJob, stage_config
from poma3d.cost.activations import meta_stage, outline, stage_size
from poma3d.cost.bound import most_activations
from poma3d.cost.flops import pairs
from poma3d.network.config import FULL, LORA
from poma3d.stages import MainStage

LEAST_WIDTHS_OF_RANK = 8
"""Adapters of a rank up to width / this take less than the weights that they adapt would, trained."""
SHARED_GRADIENTS, WHOLE_GRADIENTS = 2, 1
"""ZeRO stages. Gradients of adapters are often few enough to stay whole at stage 2."""


def at_most(job: PretrainJob, sizes: Sequence[int]) -> list[int] | None:
    """Upper bounds on the bytes that a worker holds in any stage, one for each number of workers.

    None where there is no simple one: a teacher whose shape cannot be read directly, adapters of a high rank,
    data that do not fit the model.

    Raises:
        PlinthError: a teacher that is not there, or is damaged.
    """
    teacher = teachers.outline_in_folder(job.teacher, job.storage)
    if teacher is None:
        return None
    model, tuning, zero = job.model, job.model.encoder.tuning, job.zero.stage
    if tuning.mode == LORA:
        if tuning.rank * LEAST_WIDTHS_OF_RANK > teacher.tower.shape.width:
            return None
        # As if all weights were trained: building adapters imports peft, which imports transformers.
        model = replace(model, encoder=replace(model.encoder, tuning=replace(tuning, mode=FULL)))
        zero = WHOLE_GRADIENTS if zero == SHARED_GRADIENTS else zero
    most = [0] * len(sizes)
    for name in STAGES:
        stage = stage_config(job, name)
        if stage is None:
            continue
        data = data_facts(job, name, stage, teacher.tower.shape.joint, {})
        try:
            built = meta_stage(name, model, stage.loss, data.shape, outline(teacher.tower.shape))
        except ValueError:
            return None
        size, kept = stage_size(built), most_activations(built)
        rows = pairs(data.shape.views, stage.global_batch_size, isinstance(built, MainStage))
        for i, workers in enumerate(sizes):
            held = memory(size, kept, job.zero, zero, workers, stage.micro_batch_size, rows, two_pass=False)
            most[i] = max(most[i], held.peak)
    return most
