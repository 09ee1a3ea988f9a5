"""The job file of `poma export`."""

from __future__ import annotations

from dataclasses import dataclass, field

from jobs.evaluate.config import EncoderWeights
from plinth.counts import CountOrZero
from plinth.locations import Location, ResultLocation
from plinth.schema import MISSING
from plinth.storage import StorageOptions


@dataclass
class ExportJob:
    """`poma export`: a run's target encoder -> safetensors + config."""

    kind: str = "export"
    """Which command this file is for."""
    run: Location = MISSING
    """Folder of the run: output/name."""
    output: ResultLocation = MISSING
    """Folder or URI that gets config.json and model.safetensors."""
    weights: EncoderWeights = EncoderWeights.target
    """Of a run's main stage: target, the moving average that the paper uses, or student, the encoder that it
    follows: after a short run the target is still near its start."""
    stage: str | None = None
    """warmup or main; empty for the last stage that has a checkpoint."""
    step: CountOrZero | None = None
    """Step of the checkpoint; empty for the last."""
    storage: StorageOptions = field(default_factory=StorageOptions)
    """How to reach run and output."""
