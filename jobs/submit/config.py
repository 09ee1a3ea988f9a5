"""The section of a job on Kubernetes: what its manifest has beside the run's own containers."""

from __future__ import annotations

from dataclasses import dataclass

from plinth.locations import Location
from plinth.schema import MISSING


@dataclass
class HistoryConfig:
    """Ray's logs and events, kept for KubeRay's History Server, which shows the dashboards of clusters that
    are gone."""

    location: Location = MISSING
    """Where the server reads them: s3://bucket/prefix (with storage.region) or gs://bucket/prefix."""


@dataclass
class KubernetesConfig:
    """What `poma submit --render` writes; nothing else looks at it, and it decides nothing of the result."""

    history: HistoryConfig | None = None
    """Ray's logs and events kept for the dashboard of a cluster that is gone; null keeps none."""
