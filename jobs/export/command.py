"""`poma export`: a run's encoder as a folder that loads without Ray, DeepSpeed or the platform."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from jobs.evaluate import encoders
from jobs.export.config import ExportFormat, ExportJob
from jobs.jobfile import load
from plinth.storage import Storage
from poma3d import export
from poma3d.export import SceneEncoder

CARD = "README.md"


def run(arguments: argparse.Namespace) -> int:
    """Write the folder and say how to load it; returns the exit code."""
    asked_format = [f"format={arguments.format}"] if arguments.format else []
    return run_job(load(ExportJob, arguments.job, [*arguments.overrides, *asked_format]))


def run_job(job: ExportJob) -> int:
    """The same for a job that is at hand."""
    output = Storage.from_uri(job.output, job.storage)
    output.check(write=True)
    encoder = encoders.load(job.run, job.storage, stage=job.stage, step=job.step, weights=job.weights)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if job.format is ExportFormat.transformers:
            how = _for_transformers(job, encoder, folder, output.uri)
        else:
            export.save(encoder, folder)
            how = f'load it with poma3d.export.load("{output.uri}")'
        files = sorted(path.name for path in folder.iterdir() if path.name != export.CONFIG)
        for file in (*files, export.CONFIG):  # the config last: a folder without it is no export
            output.upload(folder / file, file)
    print(f"{output.uri}: {encoder.provenance.run}")
    print(how)
    return 0


def _for_transformers(job: ExportJob, encoder: SceneEncoder, folder: Path, uri: str) -> str:
    """Fill the folder with the model, its processor and its card; returns how it is loaded."""
    # Only here: transformers' classes of models take seconds to import.
    import poma3d.auto
    from jobs.export import card, facts

    poma3d.auto.save(encoder, folder)
    known = facts.collect(job, encoder, folder)
    (folder / CARD).write_text(card.render(known), encoding="utf-8")
    return f'load it with `import poma3d.auto` and transformers.AutoModel.from_pretrained("{uri}")'
