"""The job file of `poma evaluate`."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from plinth.counts import Count
from plinth.errors import ConfigError
from plinth.locations import Location, ResultLocation
from plinth.schema import MISSING
from plinth.storage import StorageOptions
from poma3d.evaluate.config import ProbeConfig, RetrievalConfig
from poma3d.evaluate.zero_shot.config import BenchmarkConfig
from poma3d.pretrained.config import TeacherConfig


class EncoderWeights(Enum):
    """Which of a run's encoders."""

    target = "target"
    student = "student"


class MeasureKind(Enum):
    """What is measured."""

    retrieval = "retrieval"
    probe = "probe"


@dataclass
class EvaluateJob:
    """`poma evaluate`: an encoder on held-out scenes."""

    kind: str = "evaluate"
    """Which command this file is for."""
    run: ResultLocation = MISSING
    """Folder of the run (output/name), or of an exported encoder."""
    weights: EncoderWeights = EncoderWeights.target
    """Of a run's main stage: target, the moving average that the paper uses, or student, the encoder that it
    follows: after a short run the target is still near its start."""
    data: Location = MISSING
    """Folder or URI of the held-out data set, embedded by the run's teacher."""
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    """The run's teacher; it embeds the queries."""
    retrieval: RetrievalConfig = field(default_factory=RetrievalConfig)
    """Zero-shot scene retrieval."""
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    """Linear probe of the classes in view."""
    benchmark: BenchmarkConfig = field(default_factory=BenchmarkConfig)
    """Published zero-shot benchmarks, from annotation files."""
    batch_size: Count = 16
    """Scenes that pass through the encoder at once."""
    output: Location | None = None
    """Where evaluations/ and evaluation.json go; beside the run when empty."""
    storage: StorageOptions = field(default_factory=StorageOptions)
    """How to reach run, data and a teacher in storage."""

    def validate(self) -> None:
        """Refuse values that cannot be.

        Raises:
            ConfigError: naming the key and what to do.
        """
        check_measures("", self.retrieval, self.probe)
        try:
            self.benchmark.validate()
        except ValueError as error:
            raise ConfigError(f"{error}.") from None


def check_measures(prefix: str, retrieval: RetrievalConfig, probe: ProbeConfig) -> None:
    """Refuse settings of what is measured that cannot be.

    Args:
        prefix: of both sections' keys in the job.

    Raises:
        ConfigError: naming the key and what to do.
    """
    try:
        retrieval.validate(f"{prefix}retrieval")
        probe.validate(f"{prefix}probe")
    except ValueError as error:
        raise ConfigError(f"{error}.") from None
