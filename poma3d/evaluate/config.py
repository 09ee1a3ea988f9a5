"""The settings of what is measured."""

from __future__ import annotations

from dataclasses import dataclass, field

from poma3d.counts import Count


@dataclass
class BootstrapConfig:
    """How intervals are made."""

    draws: Count = 2000
    """How many times the scenes are drawn again with replacement."""

    confidence: float = 0.95
    """Probability mass inside the interval."""

    seed: int = 0
    """Two estimates with the same seed over the same scenes can be compared draw by draw."""

    def validate(self, key: str) -> None:
        """Refuse values that cannot be.

        Args:
            key: of this section in the job.

        Raises:
            ValueError: naming the key and what to do.
        """
        check_share(f"{key}.confidence", self.confidence)


@dataclass
class ProbeConfig:
    """How the linear classifier is trained and scored."""

    l2: float = 1e-2
    """Factor of the squared weights beside the mean cross-entropy; features are standardised first."""

    steps: Count = 100
    """L-BFGS iterations at most; it stops earlier once converged."""

    held_out: float = 0.5
    """Share of the scenes that the classifier is scored on, when one data set is split in two."""

    seed: int = 0
    """Seed of the split."""

    bootstrap: BootstrapConfig = field(default_factory=lambda: BootstrapConfig(draws=500))
    """How intervals are made."""

    def validate(self, key: str) -> None:
        """Refuse values that cannot be.

        Args:
            key: of this section in the job.

        Raises:
            ValueError: naming the key and what to do.
        """
        check_share(f"{key}.held_out", self.held_out)
        self.bootstrap.validate(f"{key}.bootstrap")


@dataclass
class RetrievalConfig:
    """What is asked of the gallery."""

    utterances: list[int] = field(default_factory=lambda: [1, 3])
    """Every M of R@M-N: how many view captions of a scene are joined into one query."""

    best: list[int] = field(default_factory=lambda: [1, 5, 10])
    """Every N of R@M-N."""

    queries_per_scene: Count = 4
    """Independent draws of M utterances from each scene; the interval is over scenes, not queries."""

    seed: int = 0
    """Seed of the utterances drawn."""

    bootstrap: BootstrapConfig = field(default_factory=BootstrapConfig)
    """How intervals are made."""

    def validate(self, key: str) -> None:
        """Refuse values that cannot be.

        Args:
            key: of this section in the job.

        Raises:
            ValueError: naming the key and what to do.
        """
        check_counts(f"{key}.utterances", self.utterances)
        check_counts(f"{key}.best", self.best)
        self.bootstrap.validate(f"{key}.bootstrap")


def check_counts(key: str, values: list[int]) -> None:
    """Refuse an empty list, and numbers below 1.

    Raises:
        ValueError: naming the key.
    """
    if not values or any(value < 1 for value in values):
        raise ValueError(f"{key} is {values}; name numbers of 1 or more")


def check_share(key: str, value: float) -> None:
    """Refuse a share that is not between 0 and 1, or that is one of the two.

    Raises:
        ValueError: naming the key.
    """
    if not 0 < value < 1:
        raise ValueError(f"{key} is {value}; give a share above 0 and below 1")
