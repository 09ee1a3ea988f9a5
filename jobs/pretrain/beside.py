"""What is measured of a checkpoint beside the training (`plinth.launch.beside` says when and where)."""

from __future__ import annotations

import contextlib
import io
from functools import partial

from jobs.common import models
from jobs.common.datasets import open_dataset
from jobs.common.devices import own_device
from jobs.common.run_layout import run_storage
from jobs.evaluate import encoders, measure
from jobs.evaluate.config import EvaluateJob
from jobs.pretrain.config import PretrainJob
from plinth.errors import DataError
from plinth.launch.beside import BesideJob
from plinth.locations import absolute


def beside(job: PretrainJob) -> BesideJob | None:
    """What the job asks for; None where it asks for nothing."""
    if job.evaluate_beside is None:
        return None
    return BesideJob(job.evaluate_beside, partial(evaluate_checkpoint, absolute(job)))


def evaluate_checkpoint(job: PretrainJob, stage: str, step: int) -> dict[str, float]:
    """Retrieval and probe of a checkpoint on the held-out scenes: "R@1-5", "scene R@1-5", "probe AP".

    Raises:
        DataError: nothing there can be measured.
    """
    asked = job.evaluate_beside
    assert asked is not None
    run = run_storage(job).uri
    wanted = EvaluateJob(
        run=run, data=asked.data, teacher=job.teacher, weights=asked.weights, retrieval=asked.retrieval,
        probe=asked.probe, batch_size=asked.batch_size, storage=job.storage,
    )  # fmt: skip
    dataset = open_dataset(asked.data, job.storage, models.record(job.teacher, job.storage))
    samples = dataset.samples(asked.max_samples)
    device = own_device()
    encoder = encoders.load(run, job.storage, job.teacher, stage, step, asked.weights).to(device)
    teacher = models.open_teacher(job.teacher, job.storage, device)
    features = measure.gather_features({measure.MODEL: encoder}, samples, asked.batch_size)
    with contextlib.redirect_stderr(io.StringIO()):  # what it warns of the data is the same each time
        found = measure.measure(wanted, samples, dataset.classes, features, teacher, asked.kinds)
    numbers = found.numbers[measure.MODEL]
    if not numbers:
        raise DataError(
            f"{dataset.storage.uri} has nothing that evaluate_beside.kinds could measure.",
            "Retrieval needs captions, the probe classes in the manifest, too.",
        )
    return {name: each.value for name, each in numbers.items()}
