"""Whether a run may resume: the job and the data must be those of its last checkpoint."""

from __future__ import annotations

from plinth import config
from plinth.errors import CheckpointError
from plinth.train.resolve import Notes


def check_resume(accept_changes: bool, saved: Notes, now: Notes) -> None:
    """Name what changed since the last checkpoint, and refuse to resume unless changes are accepted."""
    changed = config.changed_keys(saved["config"], now["config"])
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
