"""What a run of a language model knows about itself, for its model card."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from jobs.common.run_layout import CONFIG_KEY, TRAINING
from jobs.export.config import Adapters, ExportJob
from jobs.export.facts import (
    NO_VERSION,
    NOT_STATED,
    DataFact,
    RunFacts,
    commands_of,
    data_fact,
    exported_with,
    handed_on,
    sha256_of,
    shown_job,
)
from jobs.export.language_model import LlmRun
from jobs.finetune.llm.config import CAPTIONS
from jobs.pretrain.data_versions import read_pins
from jobs.runs.evaluations import read_evaluations
from plinth import config
from plinth.data import manifest as manifests
from poma3d.auto.folder import without_paths
from poma3d.export import Provenance, weights_digest
from poma3d.llm.config import LORA

METRICS = "metrics.jsonl"


@dataclass(frozen=True, kw_only=True)
class LlmFacts(RunFacts):
    """All that the card of a language model says."""

    run: str
    """Run, stage and step, without folders of this machine."""
    has_base: bool
    """Whether a model was tuned; new weights otherwise."""
    base: str
    """The model that was tuned."""
    base_revision: str
    is_hub: bool
    """Whether the base is named by its hub id."""
    llm_class: str
    tune: str
    lora: dict[str, Any]
    """Settings of the adapters; empty without."""
    scene: dict[str, Any]
    """What a scene becomes."""
    encoder: Provenance | None
    """None where no scene is looked at."""
    metrics: dict[str, float]
    """Of the last step of training before the checkpoint."""
    separate: bool
    """Whether adapters lie apart."""


def collect(job: ExportJob, run: LlmRun, folder: Path) -> LlmFacts:
    """What is known of a language model whose files lie in `folder`."""
    trained, own = run.trained, run.job
    raw = config.parse(run.storage.read(CONFIG_KEY).decode(), CONFIG_KEY)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    parts = [trained.llm, trained.projector, None if trained.encoder is None else trained.encoder.vit]
    hashes = {f"sha256 of {path.relative_to(folder).as_posix()}": sha256_of(path) for path in files}
    if trained.encoder is not None:
        hashes = {"the encoder's weights and sizes": weights_digest(trained.encoder), **hashes}
    return LlmFacts(
        name=job.card.name or run.storage.uri.rstrip("/").rpartition("/")[2],
        license=job.card.license,
        parameters=sum(p.numel() for part in parts if part is not None for p in part.parameters()),
        data=list(_data(job, run)),
        evaluations=[handed_on(one) for one in read_evaluations(run.storage)],
        config=shown_job(OmegaConf.to_container(raw)),
        hashes=hashes,
        software={
            "order of the data that the checkpoint has read": str(run.state["notes"]["data"]),
            **{f"trained with {name}": str(v) for name, v in run.state.get("versions", {}).items()},
            **exported_with(),
            "exported with peft": version("peft"),
        },
        commands=commands_of(run.storage),
        run=trained.provenance["run"],
        has_base=own.llm.new is None,
        base=run.base,
        base_revision=run.revision,
        is_hub=run.is_hub,
        llm_class=trained.llm_class,
        tune=own.llm.tune,
        lora=asdict(own.llm.lora) if own.llm.tune == LORA else {},
        scene=asdict(own.scene),
        encoder=None if trained.encoder is None else without_paths(trained.encoder.provenance),
        metrics=_metrics(run),
        separate=job.adapters is Adapters.separate,
    )


def _data(job: ExportJob, run: LlmRun) -> Iterator[DataFact]:
    """Conversations by kind, then the features and scenes that they are about."""
    stated = {one.data: one.license for one in job.card.data_licenses}
    for folder, manifest in run.conversations.items():
        kind = folder.rpartition("/")[2].rpartition("-")[0]
        counts = manifest.attributes["counts"]
        samples = f"{counts['rows']:,} conversations about {counts['scenes']:,} scenes"
        license_ = stated.get(kind, NOT_STATED)
        yield DataFact("conversations", kind, NO_VERSION, samples, manifest.hash, license_)
    pins = read_pins(run.storage).get(TRAINING, {})
    for role, uris in (("features", run.job.train.features), ("scenes", run.job.train.scenes)):
        for each in uris:
            uri, number = manifests.split_version(each)
            yield data_fact(role, uri, number, pins, job.card, job.storage)
    for one in run.job.train.conversations:
        for file in one.annotations if one.kind not in CAPTIONS else ():
            name = file.rstrip("/").rpartition("/")[2]
            license_ = stated.get(name, NOT_STATED)
            yield DataFact(f"{one.kind} file", name, NO_VERSION, NOT_STATED, NOT_STATED, license_)


def _metrics(run: LlmRun) -> dict[str, float]:
    """Of the last step before the checkpoint; empty where the run has kept none."""
    storage, found = run.storage.child(TRAINING), {}
    if not storage.exists(METRICS):
        return {}
    for line in storage.read(METRICS).decode().splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
            row = json.loads(line)
            if int(row["step"]) < run.step:
                logged = {"loss": row["loss"], **row.get("logs", {})}
                found = {str(name): float(value) for name, value in logged.items()}
    return found
