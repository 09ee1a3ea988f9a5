"""`poma export`: a run's encoder, or its language model, as a folder that loads without Ray, DeepSpeed or the
platform."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from jobs.evaluate import encoders
from jobs.export.config import Adapters, ExportFormat, ExportJob
from jobs.export.earlier import refuse_something_else
from jobs.finetune.llm.answers import is_language_model, read_job
from jobs.jobfile import load
from plinth.errors import ConfigError
from plinth.storage import Storage
from poma3d import export
from poma3d.export import SceneEncoder, fields
from poma3d.export.folder import FORMAT

CARD = "README.md"
ADAPTER_CONFIG = "adapter_config.json"


def run(arguments: argparse.Namespace) -> int:
    """Write the folder and say how to load it; returns the exit code."""
    asked_format = [f"format={arguments.format}"] if arguments.format else []
    return run_job(load(ExportJob, arguments.job, [*arguments.overrides, *asked_format]))


def run_job(job: ExportJob) -> int:
    """The same for a job that is at hand."""
    output = Storage.from_uri(job.output, job.storage)
    output.check(write=True)
    if job.format is ExportFormat.transformers and is_language_model(job.run, job.storage):
        return _language_model(job, output)
    refuse_language_keys(job)
    theirs = job.format is ExportFormat.transformers
    marker = {"model_type": fields.MODEL_TYPE} if theirs else {"format": FORMAT}
    refuse_something_else(output, export.CONFIG, marker)
    encoder = encoders.load(job.run, job.storage, stage=job.stage, step=job.step, weights=job.weights)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if theirs:
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


def refuse_language_keys(job: ExportJob) -> None:
    """Refuse what only a language model in format transformers has, and one that has no encoder to export.

    Raises:
        ConfigError: naming the key.
    """
    for key, given in (("adapters", job.adapters is Adapters.separate), ("encoder", job.encoder is not None)):
        if given:
            raise ConfigError(
                f"{key} is of a run of a language model in format transformers, and this exports an encoder.",
                f"Leave {key} out, or give output/name of a job of the kind finetune_llm and "
                "--format transformers.",
            )
    if is_language_model(job.run, job.storage) and read_job(job.run, job.storage).encoder is None:
        raise ConfigError(
            f"{job.run} is a run of a language model whose encoder was frozen: format poma3d exports an "
            "encoder alone.",
            "Use --format transformers, or give the encoder that its features were made with.",
        )


def _language_model(job: ExportJob, output: Storage) -> int:
    """Write a language model's folder and say how it is loaded; returns the exit code."""
    # Only here: transformers' classes of models take seconds to import.
    from jobs.export import language_card, language_facts, language_model
    from poma3d.auto.language.folder import PARTS

    if job.adapters is Adapters.separate:
        refuse_something_else(output, PARTS, {})
    else:
        refuse_something_else(output, export.CONFIG, {"model_type": fields.LLM_MODEL_TYPE})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = language_model.write(job, folder)
        known = language_facts.collect(job, run, folder)
        (folder / CARD).write_text(language_card.render(known), encoding="utf-8")
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        last = {export.CONFIG, ADAPTER_CONFIG}  # a folder without it is no export
        for path in sorted(paths, key=lambda path: path.relative_to(folder).as_posix() in last):
            output.upload(path, path.relative_to(folder).as_posix())
    print(f"{output.uri}: {known.run}")
    if known.separate:
        print(
            f'load it with poma3d.auto.join(base, "{output.uri}"), the adapters alone with '
            f"peft.PeftModel.from_pretrained; base: {run.base}"
        )
    else:
        print(
            f"load it with `import poma3d.auto` and "
            f'transformers.AutoModelForCausalLM.from_pretrained("{output.uri}")'
        )
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
