"""`poma evaluate`: a run's encoder on held-out scenes, beside chance, itself untrained, and its teacher."""

from __future__ import annotations

import argparse
import logging
from dataclasses import dataclass

from jobs.common import models
from jobs.common.datasets import Dataset, open_dataset
from jobs.common.devices import own_device
from jobs.evaluate import encoders, measure, record
from jobs.evaluate.benchmark.result import BenchmarkResult
from jobs.evaluate.benchmark.run import check_files, run_benchmarks
from jobs.evaluate.config import EvaluateJob
from jobs.evaluate.tables import plain_table, tables_of
from jobs.jobfile import asked
from jobs.runs.page import PAGE_KEY, write_page
from plinth.errors import DataError, StorageError, first_line
from plinth.storage import Storage
from poma3d.pretrained.teacher import Teacher
from poma3d.sample import Sample

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """The results with what they were made from, for the report."""

    results: measure.Results
    samples: list[Sample]
    features: measure.Features
    teacher: Teacher
    benchmarks: list[BenchmarkResult]
    written: str
    """Where the results are."""


def run(arguments: argparse.Namespace) -> int:
    """Print the tables and write the results; returns the exit code."""
    return run_job(asked(EvaluateJob, arguments))


def run_job(job: EvaluateJob) -> int:
    """The same for a job that is at hand."""
    outcome = evaluate(job)
    benchmarks = [benchmark.table() for benchmark in outcome.benchmarks]
    for table in (*tables_of(outcome.results), *benchmarks):
        print(plain_table(table) + "\n")
    print(outcome.written)
    return 0


def held_out(job: EvaluateJob) -> tuple[Dataset, list[Sample]]:
    """The data set that the job asks for, and its samples.

    Raises:
        DataError: no captions to ask for, or data of another teacher.
    """
    wanted = models.record(job.teacher, job.storage)
    dataset = open_dataset(job.data, job.storage, wanted)
    samples = dataset.samples()
    if job.benchmark.is_empty and not any(
        captions for s in samples for captions in (*s.view_captions, s.scene_captions)
    ):
        raise DataError(f"{dataset.storage.uri} has no captions to ask for.", "Ingest scenes with captions.")
    return dataset, samples


def evaluate(job: EvaluateJob) -> Outcome:
    """Measure and write the results.

    Raises:
        DataError: no captions to ask for, or data of another teacher.
        CheckpointError: no encoder at `job.run`.
    """
    job.validate()
    check_files(job.benchmark)
    dataset, samples = held_out(job)
    encoder = encoders.load(job.run, job.storage, job.teacher, weights=job.weights)
    known = {measure.MODEL: encoder}
    run_storage = Storage.from_uri(job.run, job.storage)
    if encoders.is_pretrained(run_storage):
        trained_by = encoders.read_job(run_storage)
        trained_by.teacher, trained_by.storage = job.teacher, job.storage
        known[measure.UNTRAINED] = encoders.untrained(trained_by, dataset.shape)
    device = own_device()
    teacher = models.open_teacher(job.teacher, job.storage, device)
    known = {name: encoder.to(device) for name, encoder in known.items()}
    features = measure.gather_features(known, samples, job.batch_size)
    results = measure.measure(job, samples, dataset.classes, features, teacher)
    benchmarks = run_benchmarks(job.benchmark, samples, features, teacher)
    found = results.to_dict()
    if benchmarks:
        found["benchmarks"] = [benchmark.to_dict() for benchmark in benchmarks]
    output = Storage.from_uri(job.output or job.run, job.storage)
    key = record.keep(output, job.data, dataset, encoder, found)
    _renew_page(run_storage)
    return Outcome(results, samples, features, teacher, benchmarks, f"{output.uri}/{key}")


def _renew_page(run: Storage) -> None:
    """The run's page shows its evaluations; a run whose folder cannot be written to keeps the page it has."""
    if not run.exists(PAGE_KEY):
        return
    try:
        write_page(run)
    except StorageError as error:
        logger.warning("the run's page does not show this evaluation yet: %s", first_line(error))
