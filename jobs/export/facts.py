"""What a run knows about itself, for the model card of its encoder.

The card is for others: folders of this machine are named by their last part, and what the run has of
machines, storage and workers is left out.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from jobs.common.run_layout import CONFIG_KEY, STAGES
from jobs.evaluate import encoders
from jobs.export.config import CardConfig, ExportJob
from jobs.pretrain.config import PretrainJob, stage_config
from jobs.pretrain.data_versions import read_pins
from jobs.runs.evaluations import Evaluation, read_evaluations
from jobs.runs.started import DISTRIBUTION, code_version, read_starts
from plinth import config
from plinth.checkpoint import store
from plinth.data import manifest as manifests
from plinth.errors import PlinthError
from plinth.redaction import redact
from plinth.storage import Storage, StorageOptions
from poma3d.auto.folder import is_folder, without_paths
from poma3d.export import Provenance, SceneEncoder, weights_digest
from poma3d.network.vit import VitShape

NOT_STATED, NOT_READABLE, NO_VERSION = "not stated", "not readable now", "none"
LICENSE_KEYS = ("license", "licence")
"""Attributes of a manifest that state one."""
INFRASTRUCTURE = ("output", "storage", "ray", "lock", "metrics", "ledger", "fit", "guard", "checkpoint")
"""Sections of a job that change no weight."""
FOLDERS = re.compile(r"(?<![\w./:~-])/(?:[^\s/'\"=,\]}]+/)+")
"""The folders of an absolute path: what stands before its last part. URIs have none."""
PACKAGES = ("torch", "transformers")


@dataclass(frozen=True)
class DataFact:
    """A data set that a stage has read."""

    stage: str
    name: str
    version: str
    samples: str
    hash: str
    """Of its manifest; two data sets with the same hash are the same data."""
    license: str


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What the card of any model says."""

    name: str
    license: str | None
    parameters: int
    data: list[DataFact]
    evaluations: list[Evaluation]
    config: str
    """The resolved job as YAML; empty where there is no run."""
    hashes: dict[str, str]
    """File or thing -> hash."""
    software: dict[str, str]
    """Of the training and of the export: package -> version."""
    commands: list[str] = field(default_factory=list)
    """Command lines by which the run was started."""


@dataclass(frozen=True, kw_only=True)
class CardFacts(RunFacts):
    """All that the card of an encoder says."""

    provenance: Provenance
    """Without folders of this machine."""
    shape: VitShape


def collect(job: ExportJob, encoder: SceneEncoder, folder: Path) -> CardFacts:
    """What is known of an encoder whose files lie in `folder`."""
    run = Storage.from_uri(job.run, job.storage)
    provenance = without_paths(encoder.provenance)
    raw = config.parse(run.read(CONFIG_KEY).decode(), CONFIG_KEY) if run.exists(CONFIG_KEY) else None
    pretrained = encoders.read_job(run) if encoders.is_pretrained(run) else None
    files = {path.name: sha256_of(path) for path in sorted(folder.iterdir())}
    return CardFacts(
        name=job.card.name or run.uri.rstrip("/").rpartition("/")[2],
        license=job.card.license,
        provenance=provenance,
        shape=encoder.vit.shape,
        parameters=sum(p.numel() for p in encoder.vit.parameters()),
        data=list(_data(run, pretrained, job)) if pretrained else [],
        evaluations=[handed_on(one) for one in read_evaluations(run)],
        config="" if raw is None else shown_job(OmegaConf.to_container(raw)),
        hashes={
            "weights and sizes (as data sets of features name their encoder)": weights_digest(encoder),
            **{f"sha256 of {name}": digest for name, digest in files.items()},
        },
        software={**_trained_with(run, pretrained, provenance), **exported_with()},
        commands=commands_of(run),
    )


def commands_of(run: Storage) -> list[str]:
    """Command lines by which a run was started, without folders of this machine."""
    return list(dict.fromkeys(without_folders(redact(start.command)) for start in read_starts(run)))


def without_folders(text: str) -> str:
    """A text with absolute paths cut to their last parts."""
    return FOLDERS.sub("", text)


def handed_on(evaluation: Evaluation) -> Evaluation:
    """An evaluation without folders of this machine."""
    return replace(
        evaluation,
        title=without_folders(evaluation.title),
        command=without_folders(redact(evaluation.command)),
        benchmarks=[handed_on(one) for one in evaluation.benchmarks],
    )


def _data(run: Storage, pretrained: PretrainJob, job: ExportJob) -> Iterator[DataFact]:
    """The data sets of all stages, each at the version that the run has read."""
    pins = read_pins(run)
    for stage in STAGES:
        section = stage_config(pretrained, stage)
        for source in section.data.sources if section else ():
            uri, number = manifests.split_version(source.uri)
            yield data_fact(stage, uri, number, pins.get(stage, {}), job.card, job.storage)


def data_fact(
    stage: str, uri: str, number: int | None, pins: dict[str, int], card: CardConfig, options: StorageOptions
) -> DataFact:
    """A data set at the version that the run has read."""
    name = uri.rstrip("/").rpartition("/")[2]
    stated = {one.data: one.license for one in card.data_licenses}.get(name)
    try:
        storage = Storage.from_uri(uri, options)
        number = pins.get(storage.uri, pins.get(uri)) if number is None else number
        manifest = manifests.load_version(storage, number)
    except PlinthError:  # it was there when the run read it, and is not now, or not for who exports
        at = NOT_STATED if number is None else str(number)
        return DataFact(stage, name, at, NOT_STATED, NOT_READABLE, stated or NOT_STATED)
    attributes = manifest.attributes
    known = next((str(attributes[key]) for key in LICENSE_KEYS if attributes.get(key)), NOT_STATED)
    at = str(number or attributes.get("version") or NO_VERSION)
    return DataFact(stage, name, at, f"{manifest.rows:,}", manifest.hash, stated or known)


def shown_job(raw: Any) -> str:
    """The job as YAML, without machines and folders."""
    kept = {key: value for key, value in raw.items() if key not in INFRASTRUCTURE}
    return redact(yaml.safe_dump(_named(kept), sort_keys=False, allow_unicode=True))


def _named(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _named(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_named(one) for one in value]
    if isinstance(value, str):
        return Path(value).name if is_folder(value) else without_folders(value)
    return value


def _trained_with(run: Storage, pretrained: PretrainJob | None, provenance: Provenance) -> dict[str, str]:
    """What the checkpoint says of its training; nothing where there is none."""
    named = encoders.named_checkpoint(provenance.run)
    if pretrained is None or named is None or named[1] not in STAGES:
        return {}
    _, stage, step = named
    state = store.read_state(run.child(stage).child("checkpoints"), step)
    trained = {f"trained with {name}": str(found) for name, found in state.get("versions", {}).items()}
    return {"order of the data that the checkpoint has read": str(state["notes"]["data"]), **trained}


def exported_with() -> dict[str, str]:
    """Versions of what exports now."""
    versions = {f"exported with {name}": version(name) for name in PACKAGES}
    return {f"exported with {DISTRIBUTION}": code_version(), **versions}


def sha256_of(path: Path) -> str:
    """Hash of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
