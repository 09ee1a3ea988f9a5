"""Whether a run may resume: the job and the data must be those of its last checkpoint."""

from __future__ import annotations

from typing import Any

from plinth import config
from plinth.errors import CheckpointError
from plinth.train.resolve import Notes


def check_resume(accept_changes: bool, saved: Notes, now: Notes) -> None:
    """Name what changed since the last checkpoint, and refuse to resume unless changes are accepted."""
    changed = config.changed_keys(_as_now(saved["config"], now["config"]), now["config"])
    listed = "; ".join(f"{key} was {old} and is {new}" for key, old, new in changed)
    if not changed and saved["data"] != now["data"]:
        listed = "the data sets hold other samples"
    if not listed:
        return
    if accept_changes:
        print(f"resuming with changes: {listed}")
        if saved["data"] != now["data"]:
            print("the order of the data is another one: the pass under way is left, the next one begins")
        return
    raise CheckpointError(
        f"The job has changed since the run's last checkpoint: {listed}.",
        "Go back to those values, give the run another name, or add --accept-changes.",
    )


def _as_now(saved: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint's keys by the names of today: older ones keep two keys of `zero` at the top, and of its
    others nothing, so that these are free as they were then."""
    if "zero" in saved:
        return saved
    moved = {key: saved[key] for key in ("precision", "exact_sums") if key in saved}
    return {k: v for k, v in saved.items() if k not in moved} | {"zero": now["zero"] | moved}
