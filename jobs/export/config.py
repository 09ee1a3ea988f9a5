"""The job file of `poma export`."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from jobs.evaluate.config import EncoderWeights
from plinth.counts import CountOrZero
from plinth.locations import Location, ResultLocation
from plinth.schema import MISSING
from plinth.storage import StorageOptions


class ExportFormat(Enum):
    """For whom the folder is."""

    poma3d = "poma3d"
    transformers = "transformers"


class Adapters(Enum):
    """What becomes of a language model's adapters."""

    merged = "merged"
    separate = "separate"


@dataclass
class DataLicense:
    """The licence of a data set that the run has read."""

    data: str = MISSING
    """The data set, as the card names it: the last part of its URI."""
    license: str = MISSING
    """Its licence, as text."""


@dataclass
class CardConfig:
    """What the model card says and the run does not know; empty values are "not stated"."""

    name: str | None = None
    """Name of the model; that of the run when empty."""
    license: str | None = None
    """Licence of the weights, as the hub writes it: apache-2.0, cc-by-nc-4.0, other."""
    data_licenses: list[DataLicense] = field(default_factory=list)
    """Licences of the data sets, in place of what their manifests say (`license` in the attributes)."""


@dataclass
class ExportJob:
    """`poma export`: a run's target encoder, or its language model -> safetensors + config."""

    kind: str = "export"
    """Which command this file is for."""
    run: Location = MISSING
    """Folder of the run: output/name."""
    output: ResultLocation = MISSING
    """Folder or URI that gets the files."""
    format: ExportFormat = ExportFormat.poma3d
    """poma3d: config.json and model.safetensors for `poma3d.export.load`. transformers: a folder for
    `AutoModel.from_pretrained`, with a processor and a model card; `--format` sets it, too."""
    adapters: Adapters = Adapters.merged
    """Of a language model in format transformers. merged: one model that transformers generates with,
    adapters folded in. separate: the adapters alone, as peft loads them onto the model that was tuned, with
    projector and encoder beside them."""
    encoder: Location | None = None
    """Of a language model that was trained on stored features: the run or export of the encoder that made
    them; where it was then, when empty."""
    card: CardConfig = field(default_factory=CardConfig)
    """For the model card of format transformers."""
    weights: EncoderWeights = EncoderWeights.target
    """Of a run's main stage: target, the moving average that the paper uses, or student, the encoder that it
    follows: after a short run the target is still near its start."""
    stage: str | None = None
    """warmup or main; empty for the last stage that has a checkpoint."""
    step: CountOrZero | None = None
    """Step of the checkpoint; empty for the last."""
    storage: StorageOptions = field(default_factory=StorageOptions)
    """How to reach run and output."""
