"""Whether a run may resume: the job and the data must be those of its last checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from plinth import config
from plinth.errors import CheckpointError
from plinth.train.resolve import Notes


@dataclass(frozen=True)
class KeyNames:
    """What decides a result is kept by names of its own; a user has written other keys."""

    sections: Mapping[str, str] = field(default_factory=dict)
    """Section that is kept -> that of the job: the keys below it are the same."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Key or section that is kept -> key of the job with what of it counts, such as `llm.source (its
    weights)`; `{rest}` stands for what comes below the section."""

    def label(self, kept: str) -> str:
        """The key as a user writes it."""
        for names, is_whole in ((self.labels, True), (self.sections, False)):
            for name, here in names.items():
                rest = kept.removeprefix(name)
                if kept.startswith(name) and rest[:1] in ("", ".", "["):
                    return here.format(rest=rest.lstrip(".")) if is_whole else f"{here}{rest}"
        return kept

    def and_also(self, other: KeyNames) -> KeyNames:
        """These, and before them those of `other`."""
        return KeyNames({**other.sections, **self.sections}, {**other.labels, **self.labels})


NO_NAMES = KeyNames()


def check_resume(accept_changes: bool, saved: Notes, now: Notes, names: KeyNames = NO_NAMES) -> None:
    """Name what changed since the last checkpoint, and refuse to resume unless changes are accepted.

    Args:
        names: of the keys of the job.
    """
    changed = config.changed_keys(_as_now(saved["config"], now["config"]), now["config"])
    listed = "; ".join(f"{names.label(key)} was {old} and is {new}" for key, old, new in changed)
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
