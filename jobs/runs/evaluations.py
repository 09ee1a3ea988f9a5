"""What evaluations have found of a run: of `poma evaluate` as rows, beside the training as curves."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from jobs.display.figures import Curve
from plinth.checkpoint import evaluations
from plinth.storage import Storage

NEWEST, FOLDER = "evaluation.json", "evaluations/"
"""The last one, and the folder of all of them."""
SHOWN = 10
"""The newest ones."""


@dataclass(frozen=True)
class Evaluation:
    """One evaluation: a table of encoders and measures."""

    title: str
    """Data set, encoder and date, as far as the file says them."""
    header: list[str]
    rows: list[list[str]]
    command: str = ""
    """The command line that measured it; empty of files from before it was kept."""
    benchmarks: list[Evaluation] = field(default_factory=list)
    """Of published benchmarks, each with its protocol in its title; the run's page leaves them out."""


def read_evaluations(storage: Storage) -> list[Evaluation]:
    """The evaluations in a run's folder, the newest first; what cannot be read is left out."""
    kept = sorted(key for key, _ in storage.list() if key.startswith(FOLDER) and key.endswith(".json"))
    keys = kept or ([NEWEST] if storage.exists(NEWEST) else [])
    read = []
    for key in keys:
        with contextlib.suppress(ValueError, AttributeError, TypeError, KeyError, RecursionError):
            content = json.loads(storage.read(key))
            read.append((str(content.get("about", {}).get("date", "")), _shown(key, content)))
    return [shown for _, shown in sorted(read, key=lambda one: one[0], reverse=True)][:SHOWN]


def curves_beside(storage: Storage, stage: str) -> list[Curve]:
    """Checkpoints of a stage over its steps, as they were evaluated beside the training on the data set of
    the newest evaluation; measures that differ only in the N best share a plot.

    Args:
        storage: the run's folder.
    """
    found = evaluations.read(storage.child(stage).child("checkpoints"))
    of_data = {one.step: one for one in found if one.data == found[-1].data}
    by_step = [one for _, one in sorted(of_data.items())]
    plots: dict[str, list[str]] = {}
    for name in dict.fromkeys(name for one in by_step for name in one.numbers):
        label, _, best = name.rpartition("-")
        plots.setdefault(label if best.isdecimal() else name, []).append(name)
    return [
        Curve(f"{stage}: evaluation, {label}", "step", {name: _points(by_step, name) for name in names})
        for label, names in plots.items()
    ]


def _points(found: Sequence[evaluations.Evaluation], name: str) -> tuple[list[float], list[float]]:
    known = [(one.step, one.numbers[name]) for one in found if name in one.numbers]
    return [float(step) for step, _ in known], [value for _, value in known]


def _shown(key: str, content: dict[str, Any]) -> Evaluation:
    about = content.get("about", {})
    parts = (about.get("data", {}).get("uri"), about.get("encoder"), about.get("date"))
    title = ", ".join(str(part) for part in parts if part) or key
    chance = content.get("chance", {})
    encoders = {
        name: values
        for name, values in content.items()
        if name not in ("about", "chance") and isinstance(values, dict) and "value" in _first(values)
    }
    columns = list(dict.fromkeys(column for values in encoders.values() for column in values))
    rows = [["chance", *(_number(chance.get(column)) for column in columns)]]
    rows += [
        [name, *(_estimate(values.get(column)) for column in columns)] for name, values in encoders.items()
    ]
    benchmarks = [_benchmark(one) for one in content.get("benchmarks", [])]
    return Evaluation(title, ["encoder", *columns], rows, str(about.get("command", "")), benchmarks)


def _benchmark(content: dict[str, Any]) -> Evaluation:
    """A table of one benchmark: what no encoder gives, then the encoders."""
    said = {**content["references"], **content["figures"]}
    columns = list(dict.fromkeys(column for values in said.values() for column in values))
    rows = [[name, *(_figure(values.get(column)) for column in columns)] for name, values in said.items()]
    protocol = ", ".join(f"{key} {value}" for key, value in content["protocol"].items())
    title = f"{content['benchmark']}: {', '.join(content['source'])}; {protocol}"
    return Evaluation(title, ["encoder", *columns], rows)


def _figure(found: Any) -> str:
    return _estimate(found) if isinstance(found, dict) else _number(found)


def _first(values: dict[str, Any]) -> dict[str, Any]:
    first: Any = next(iter(values.values()), {})
    return first if isinstance(first, dict) else {}


def _number(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, int | float) and math.isfinite(value) else ""


def _estimate(found: dict[str, Any] | None) -> str:
    """Value with its interval, where there is one."""
    if not found:
        return ""
    low, high = _number(found.get("low")), _number(found.get("high"))
    return _number(found.get("value")) + (f" [{low}, {high}]" if low and high else "")
