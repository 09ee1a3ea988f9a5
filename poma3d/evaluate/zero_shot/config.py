"""The settings of the zero-shot benchmarks. Each section names its protocol; nothing is chosen in silence."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from poma3d.counts import Count, CountOrZero
from poma3d.evaluate.config import BootstrapConfig, check_counts
from poma3d.locations import Location


class Protocol(Enum):
    """How scenes are found by text."""

    ours = "ours"
    """Utterances are drawn at random from each scene, every scene of the data set is in the gallery, and a
    tie counts by its expectation over lots."""
    uniscene3d = "uniscene3d"
    """Utterances in file order, cut in consecutive chunks, one query each; the bank is the scenes that own a
    query; a tie counts against us."""


class LastChunk(Enum):
    """What becomes of the last chunk of a scene when it has too few utterances."""

    keep = "keep"
    """The default of the public command line."""
    drop = "drop"
    """The default of the public function."""


@dataclass
class SceneRetrievalConfig:
    """Is the right scene among the N best for M joined utterances?"""

    kind: str = "retrieval"
    """Format of the files: scanrefer, nr3d, sr3d or retrieval (JSON lines)."""
    files: list[Location] = field(default_factory=list)
    """All files of one split."""
    protocol: Protocol = Protocol.uniscene3d
    """uniscene3d or ours."""
    utterances: list[int] = field(default_factory=lambda: [1, 5])
    """Every M: how many utterances are joined to a query."""
    best: list[int] = field(default_factory=lambda: [1, 5, 10])
    """Every N."""
    last_chunk: LastChunk = LastChunk.keep
    """keep or drop; of the protocol uniscene3d."""
    views: CountOrZero = 32
    """The first so many views make a scene's feature; 0 for all. Of the protocol uniscene3d."""
    batch_mean: CountOrZero = 16
    """Also print the mean of the means over batches of so many queries, as the public code does; 0: none.
    Of the protocol uniscene3d."""
    queries_per_scene: Count = 4
    """Draws from each scene; of the protocol ours."""
    seed: int = 0
    """Of the draws; of the protocol ours."""
    bootstrap: BootstrapConfig = field(default_factory=BootstrapConfig)
    """How intervals are made, over scenes."""


@dataclass
class GroundingConfig:
    """Which view of a scene does a sentence describe?"""

    files: list[Location] = field(default_factory=list)
    """JSON lines with view_ground_truth, whose indices are those of the data set's views."""
    best: list[int] = field(default_factory=lambda: [1, 5, 10])
    """Every N of R@N."""
    bootstrap: BootstrapConfig = field(default_factory=BootstrapConfig)
    """How intervals are made, over scenes."""


@dataclass
class RoomTypeConfig:
    """Which type of room is a scene?"""

    labels: Location | None = None
    """JSON file of {scene id: type}; no benchmark without one."""
    templates: list[str] = field(
        default_factory=lambda: ["a {}", "a photo of a {}", "a view of a {}", "this is a {}"]
    )
    """Sentences with {} for the type; a class is the mean of their features."""
    shots: list[int] = field(default_factory=lambda: [1, 5, 10])
    """Every k of the few-shot rows: scenes of each class that a linear classifier learns from."""
    draws: Count = 10
    """Draws of those scenes; the figure is their mean."""
    l2: float = 1e-2
    """Factor of the squared weights of that classifier."""
    steps: Count = 100
    """L-BFGS iterations at most."""
    seed: int = 0
    """Of the draws."""
    bootstrap: BootstrapConfig = field(default_factory=BootstrapConfig)
    """How intervals are made, over scenes."""


@dataclass
class LocalisationConfig:
    """From where was a text said? The views nearest to the camera of its annotator are right."""

    files: list[Location] = field(default_factory=list)
    """ScanRefer's cameras with its texts, or SQA3D's localisation task."""
    scans: Location | None = None
    """Folder with ScanNet's SCAN/SCAN.txt (and, for SQA3D, SCAN/SCAN_vh_clean_2.ply), which bring poses to
    our world frame."""
    nearest: Count = 1
    """So many views count as right."""
    degrees_per_metre: float = 30.0
    """How near a view is: metres between the cameras, and this many degrees between their directions count as
    one metre."""
    best: list[int] = field(default_factory=lambda: [1, 5, 10])
    """Every N of R@N."""
    bootstrap: BootstrapConfig = field(default_factory=BootstrapConfig)
    """How intervals are made, over scenes."""


@dataclass
class BenchmarkConfig:
    """Published benchmarks that an encoder is measured on without training; each list may be empty."""

    retrieval: list[SceneRetrievalConfig] = field(default_factory=list)
    """Scenes found by text, one entry per set and protocol."""
    grounding: list[GroundingConfig] = field(default_factory=list)
    """Views found by text."""
    room_type: RoomTypeConfig = field(default_factory=RoomTypeConfig)
    """Types of rooms, zero-shot and few-shot."""
    localisation: list[LocalisationConfig] = field(default_factory=list)
    """Places found by text."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing is asked for."""
        return not (self.retrieval or self.grounding or self.localisation or self.room_type.labels)

    def validate(self) -> None:
        """Refuse values that cannot be.

        Raises:
            ValueError: naming the key and what to do.
        """
        for i, each in enumerate(self.retrieval):
            where = f"benchmark.retrieval[{i}]"
            if each.kind not in RETRIEVAL_KINDS:
                raise ValueError(f"{where}.kind is '{each.kind}'; use one of {', '.join(RETRIEVAL_KINDS)}")
            check_counts(f"{where}.utterances", each.utterances)
        entries = [
            *((f"retrieval[{i}]", each.files, each.best) for i, each in enumerate(self.retrieval)),
            *((f"grounding[{i}]", each.files, each.best) for i, each in enumerate(self.grounding)),
            *((f"localisation[{i}]", each.files, each.best) for i, each in enumerate(self.localisation)),
        ]
        for name, files, best in entries:
            if not files:
                raise ValueError(f"benchmark.{name}.files is empty: name the annotation files")
            check_counts(f"benchmark.{name}.best", best)
        for i, place in enumerate(self.localisation):
            if not place.degrees_per_metre > 0:
                raise ValueError(f"benchmark.localisation[{i}].degrees_per_metre must be above 0")
        if self.room_type.labels:
            if not self.room_type.templates or any("{}" not in t for t in self.room_type.templates):
                raise ValueError("benchmark.room_type.templates needs sentences with {} for the type")
            if any(shots < 1 for shots in self.room_type.shots):
                raise ValueError("benchmark.room_type.shots are 1 or more")


RETRIEVAL_KINDS = ("retrieval", "scanrefer", "nr3d", "sr3d")
"""Formats of annotation files that hold utterances about scenes."""
