"""`poma export`: a run's encoder as a folder that loads without Ray, DeepSpeed or the platform."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from jobs.evaluate import encoders
from jobs.export.config import ExportJob
from jobs.jobfile import asked
from plinth.storage import Storage
from poma3d import export


def run(arguments: argparse.Namespace) -> int:
    """Write config.json and model.safetensors and say how to load them; returns the exit code."""
    return run_job(asked(ExportJob, arguments))


def run_job(job: ExportJob) -> int:
    """The same for a job that is at hand."""
    output = Storage.from_uri(job.output, job.storage)
    output.check(write=True)
    encoder = encoders.load(job.run, job.storage, stage=job.stage, step=job.step, weights=job.weights)
    with tempfile.TemporaryDirectory() as folder:
        export.save(encoder, folder)
        for name in (export.WEIGHTS, export.CONFIG):  # the config last: a folder without it is no export
            output.upload(Path(folder) / name, name)
    print(f"{output.uri}: {encoder.provenance.run}")
    print(f'load it with poma3d.export.load("{output.uri}")')
    return 0
