"""Settings of what a run reports: terminal, page, TensorBoard, external trackers, guards, ledger."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass, field
from enum import Enum

from plinth.errors import ConfigError
from plinth.redaction import redact

WANDB_KEY_ENV, WANDB_MODE_ENV = "WANDB_API_KEY", "WANDB_MODE"
WANDB_MODES_WITHOUT_KEY = ("offline", "dryrun", "disabled")
SQLITE = "sqlite:///"


class SinkKind(Enum):
    """An external tracker that gets the scalars, besides TensorBoard."""

    wandb = "wandb"
    mlflow = "mlflow"


@dataclass
class MetricsConfig:
    """What is shown, and how often."""

    progress_every_s: float = 10.0
    """Seconds between two progress lines in the terminal."""
    page_every_s: float = 30.0
    """Seconds between two writes of the run's page, index.html in its folder."""
    logs_every_s: float = 30.0
    """Seconds between two copies of each rank's log to the run's logs/, in case its machine is lost."""
    details_every_steps: int = 10
    """Every how many steps the stage computes its costlier logs, and the times of each rank are written."""
    pictures_every_steps: int = 200
    """Steps between two sets of pictures in TensorBoard; 0 draws none."""
    sinks: list[SinkKind] = field(default_factory=list)
    """Trackers that also get the scalars: wandb, mlflow. Keys come only from the workers' environment
    (WANDB_API_KEY; MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN)."""
    sinks_project: str | None = None
    """sinks: the W&B project, the MLflow experiment."""
    wandb_entity: str | None = None
    """sinks wandb: the team or user that owns the project; the key's own when empty."""
    mlflow_uri: str | None = None
    """sinks mlflow: the tracking server, such as https://mlflow.lab.org, or sqlite:////shared/mlflow.db."""

    def validate(self) -> None:
        """Raise a ConfigError that names a value out of range, or a tracker that cannot be used."""
        for key in ("page_every_s", "logs_every_s"):
            if not getattr(self, key) > 0:
                raise ConfigError(f"metrics.{key} is {getattr(self, key)}, expected more than 0.")
        for key, least in (("progress_every_s", 0), ("details_every_steps", 1), ("pictures_every_steps", 0)):
            if getattr(self, key) < least:
                raise ConfigError(f"metrics.{key} is {getattr(self, key)}, expected {least} or more.")
        if self.sinks:
            self._validate_sinks()

    def _validate_sinks(self) -> None:
        if len(set(self.sinks)) < len(self.sinks):
            raise ConfigError("metrics.sinks names a tracker twice.", "Name each once.")
        for kind in self.sinks:
            if importlib.util.find_spec(kind.value) is None:
                raise ConfigError(
                    f"metrics.sinks has {kind.value}, and the package is not installed.",
                    "Install it here and on the workers (`pip install -e '.[sinks]'`), or leave it out.",
                )
        if not self.sinks_project:
            raise ConfigError(
                "metrics.sinks is set and metrics.sinks_project is empty.",
                "Name the W&B project or MLflow experiment that gets the run.",
            )
        if SinkKind.wandb in self.sinks:
            self._validate_wandb()
        if SinkKind.mlflow in self.sinks:
            self._validate_mlflow()

    def _validate_wandb(self) -> None:
        is_offline = os.environ.get(WANDB_MODE_ENV) in WANDB_MODES_WITHOUT_KEY
        if not is_offline and not os.environ.get(WANDB_KEY_ENV):
            raise ConfigError(
                f"metrics.sinks has wandb, and {WANDB_KEY_ENV} is not in the environment.",
                f"Set it there (never in a file), or {WANDB_MODE_ENV}=offline.",
            )

    def _validate_mlflow(self) -> None:
        uri = self.mlflow_uri
        if not uri:
            raise ConfigError(
                "metrics.sinks has mlflow, and metrics.mlflow_uri is empty.",
                "Give the tracking server's address.",
            )
        if redact(uri, {}) != uri:
            raise ConfigError(
                "metrics.mlflow_uri holds a password, and jobs are saved.",
                "Put it in MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD.",
            )
        is_relative = "://" not in uri and not uri.startswith("/")
        if is_relative or (uri.startswith(SQLITE) and not uri.startswith(f"{SQLITE}/")):
            raise ConfigError(
                f"metrics.mlflow_uri {uri} is a relative path; workers run in another folder.",
                "Give it absolute, such as sqlite:////shared/mlflow.db.",
            )


class OnBadStep(Enum):
    """What is done about a bad step."""

    rollback = "rollback"
    stop = "stop"


class OnCollapse(Enum):
    """What is done about a collapsed representation."""

    warn = "warn"
    stop = "stop"


@dataclass
class GuardConfig:
    """What counts as going wrong, and what is done about it."""

    on_bad_step: OnBadStep = OnBadStep.rollback
    """After a loss or gradient that is not finite, or a spike: roll back to the last checkpoint within the
    process and leave out the samples at fault, or stop."""
    max_rollbacks: int = 3
    """Rollbacks of a stage, over all its restarts, before the run stops."""
    spike_sigmas: float = 0.0
    """A loss this many standard deviations (robustly estimated) above the median of the steps before is a
    spike; 0 turns the check off."""
    spike_window: int = 100
    """Steps that a loss is compared with; the check starts when half of them are done."""
    hang_after_s: float = 600.0
    """A step longer than this, or a wait for its batch, has the stacks of all its threads written to the
    run's logs; with Ray, the rank that the others wait for is named and ended, and the run goes on from the
    last checkpoint."""
    floors: dict[str, float] = field(default_factory=dict)
    """Logs of the stage that mean collapse when they stay below a value, e.g. target_feature_std: 0.01."""
    collapse_patience: int = 5
    """How many times in a row a log must be below its floor."""
    on_collapse: OnCollapse = OnCollapse.warn
    """Warn, or also stop the run."""

    def validate(self) -> None:
        """Raise a ConfigError that names a value out of range."""
        least = {"max_rollbacks": 0, "spike_sigmas": 0, "spike_window": 4, "collapse_patience": 1}
        for key, value in least.items():
            if getattr(self, key) < value:
                raise ConfigError(f"guard.{key} is {getattr(self, key)}, expected {value} or more.")
        if not self.hang_after_s > 0:
            raise ConfigError(f"guard.hang_after_s is {self.hang_after_s}, expected more than 0.")


@dataclass
class LedgerConfig:
    """How the run's time is accounted for."""

    beat_every_s: float = 10.0
    """Seconds between two writes of the ledger: at most this much of a killed attempt's end is unknown."""
    price_per_gpu_hour: float | None = None
    """Price of one GPU for an hour, in any currency; empty to count hours only."""

    def validate(self) -> None:
        """Raise a ConfigError that names a value out of range."""
        if not self.beat_every_s > 0:
            raise ConfigError(f"ledger.beat_every_s is {self.beat_every_s}, expected more than 0.")
        if self.price_per_gpu_hour is not None and self.price_per_gpu_hour < 0:
            raise ConfigError(
                f"ledger.price_per_gpu_hour is {self.price_per_gpu_hour}, expected 0 or more, or null."
            )
