"""How much each varied key of a sweep matters for the metric: PED-ANOVA of the optuna package.

Watanabe et al., "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary Subspaces"
(IJCAI 2023), asks how differently a key is distributed in the best trials and in all of them.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jobs.sweep.state import SweepState, Varied
from plinth.errors import ConfigError
from plinth.sweep.records import Trial
from plinth.sweep.samplers import import_optuna

LEAST_TRIALS = 10
"""With fewer, two or three lucky trials would decide the shares."""
BEST_PART = 0.25
"""Part of the trials that counts as the best; optuna's own 0.1 is one or two trials of a small sweep."""


@dataclass(frozen=True)
class Importance:
    """The shares of the varied keys, and what they were computed from."""

    note: str
    """In a sentence or two: what the shares are, or why there are none."""
    shares: dict[str, float] = field(default_factory=dict)
    """Key -> 0..1, which add up to 1; the largest first."""
    samples: int = 0
    """The length at which the trials were compared."""
    trials: int = 0


def importance(state: SweepState) -> Importance:
    """The share of each key that varies in all trials that can be compared.

    Trials that were stopped early have no value at full length. So all are compared at the longest length
    that half of them have reached, and at least `LEAST_TRIALS`. Where the values have changed on the way
    (population based training), the last ones are taken.
    """
    try:
        optuna = import_optuna()
    except ConfigError:
        return Importance("Not computed: the optuna package is not installed (pip install optuna).")
    samples, metric = _at_common_length(state)
    trials = [trial for trial in state.ranked if trial.record.index in metric]
    if len(trials) < LEAST_TRIALS:
        return Importance(f"Not computed: {len(trials)} trials can be compared, fewer than {LEAST_TRIALS}.")
    columns = {
        varied.key: _column(optuna, varied, trials) for varied in state.varied if _varies(varied, trials)
    }
    if len(columns) < 2:
        return Importance("Not computed: fewer than two keys vary in all trials that can be compared.")
    study = optuna.create_study(direction="minimize" if state.record.mode == "min" else "maximize")
    for i, trial in enumerate(trials):
        params = {key: values[i] for key, (values, _) in columns.items()}
        distributions = {key: distribution for key, (_, distribution) in columns.items()}
        value = metric[trial.record.index]
        study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=value))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "experimental" since 2024
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=BEST_PART)
        shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    note = (
        f"PED-ANOVA of {len(trials)} trials at {samples:,} samples: how differently each key is distributed "
        f"in the best {BEST_PART:.0%} of the trials and in all of them. Few trials also show chance."
    )
    return Importance(note, shares, samples, len(trials))


def _at_common_length(state: SweepState) -> tuple[int, dict[int, float]]:
    """The length in samples, and the metric there of each trial that has reached it."""
    curves = {trial.record.index: state.curve(trial) for trial in state.ranked}
    ends = sorted((samples[-1] for samples, _ in curves.values()), reverse=True)
    if not ends:
        return 0, {}
    needed = max(LEAST_TRIALS, (len(ends) + 1) // 2)
    length = ends[min(needed, len(ends)) - 1]
    reached = {index: curve for index, curve in curves.items() if curve[0][-1] >= length}
    return int(length), {index: _at(length, *curve) for index, curve in reached.items()}


def _at(length: float, samples: Sequence[float], values: Sequence[float]) -> float:
    """The metric at that length. A trial that cloned another one may have reported a length twice: the
    later value counts."""
    by_length = dict(zip(samples, values, strict=True))
    lengths = sorted(by_length)
    return float(np.interp(length, lengths, [by_length[at] for at in lengths]))


def _varies(varied: Varied, trials: Sequence[Trial]) -> bool:
    if any(varied.key not in trial.history.values for trial in trials):
        return False
    return len({_text(trial.history.values[varied.key]) for trial in trials}) > 1


def _column(optuna: Any, varied: Varied, trials: Sequence[Trial]) -> tuple[list[Any], Any]:
    """The key's values and their distribution. A value from a list is given by its place in it, because
    optuna takes no lists or mappings."""
    values = [trial.history.values[varied.key] for trial in trials]
    if varied.is_list:
        known = sorted({_text(value) for value in values})
        places = [known.index(_text(value)) for value in values]
        return places, optuna.distributions.CategoricalDistribution(range(len(known)))
    low, high = float(min(values)), float(max(values))
    is_log = varied.is_log and low > 0
    return [float(v) for v in values], optuna.distributions.FloatDistribution(low, high, log=is_log)


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
