"""The page of a sweep: index.html in its folder, self-contained, written again while the sweep goes on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from html import escape

import numpy as np
import yaml

from jobs.display.html import folded, head, page, section, table
from jobs.sweep.figures import metric_svg, parallel_svg
from jobs.sweep.show import PAGE_KEY, cost_cells, cost_header, judged_by, samples_of, spent_text
from jobs.sweep.show import table as trial_lines
from jobs.sweep.state import SweepState, Varied, metric_text, read_state, value_text
from plinth.observe.failures import utc
from plinth.observe.metrics import duration
from plinth.redaction import redact
from plinth.storage import Storage
from plinth.sweep.importance import LEAST_TRIALS, Importance, importance
from plinth.sweep.records import FINISHED, RUNNING, Status, Trial

REFRESH_S = 30
"""How often a browser loads the page of a running sweep again."""
SHOWN_BEST = 8
# Lines stand out under the mouse; matplotlib writes its widths into each element.
STYLE = """<style>
.trials svg { width: 100%; height: auto; display: block; min-width: 640px; }
.trials figure { background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
.trials figure { padding: .6rem; }
.trials text { paint-order: stroke; stroke: var(--card); stroke-width: 2.5px; stroke-linejoin: round; }
.trials + .trials { margin-top: 1rem; }
.trials g[id*="-trial-"]:hover path { stroke-width: 4 !important; stroke-opacity: 1 !important; }
.best tbody th, .best td { min-width: 0; }
table.shares { width: auto; } .shares td { min-width: 15rem; } .shares .bar i { background: var(--accent); }
</style>"""


def write_page(storage: Storage, now: float | None = None, state: SweepState | None = None) -> str:
    """Write the page of the sweep in `storage`; returns where it is.

    Args:
        now: `time.time()`; asked for when None.
        state: of that sweep; read when None.

    Raises:
        StorageError: it holds no sweep, or cannot be written.
    """
    now = time.time() if now is None else now
    state = read_state(storage) if state is None else state
    parts = [
        STYLE,
        _head(state, now),
        _best(state),
        *_pictures(state),
        _importance(state),
        _failures(state),
        folded("All trials", "\n".join(trial_lines(state))),
        folded("The resolved job", redact(yaml.safe_dump(state.job, sort_keys=False, allow_unicode=True))),
    ]
    refresh_s = 0 if state.is_over else REFRESH_S
    text = page(f"{state.record.name}: {state.record.status}", parts, refresh_s)
    storage.write(PAGE_KEY, text.encode())
    return f"{storage.uri}/{PAGE_KEY}"


def _head(state: SweepState, now: float) -> str:
    record = state.record
    tone = "good" if record.status in (RUNNING, FINISHED) else "fair"
    counts = {status.value.capitalize(): str(count) for status, count in state.counts.items()}
    facts = {
        f"Best {record.metric}": metric_text(state.best(state.ranked[0])) if state.ranked else "none yet",
        "Wall time": duration(record.spent_s),
        "Cost": str(state.cost),
        "Trials": f"{len(state.trials)} of {record.trials}",
        **counts,
        "As of": utc(now),
    }
    said = f"Judged by {judged_by(state)}, seed {record.seed}. Spent: {spent_text(state)}."
    if record.shares_warmup:
        said += " All trials start from one warm-up."
    return head(record.name, record.status, tone, redact(said), facts)


def _best(state: SweepState) -> str:
    if not state.ranked:
        return section("Best trials", '<p class="note">No trial has reported a number yet.</p>')
    metric = state.record.metric
    header = [
        "trial",
        metric,
        *(varied.name for varied in state.varied),
        "samples",
        "status",
        *cost_header(state),
    ]
    rows = [
        [
            trial.record.name, metric_text(state.best(trial)),
            *(_value(trial, varied) for varied in state.varied), f"{samples_of(trial):,}",
            trial.record.status.value, *cost_cells(state, trial),
        ]
        for trial in state.ranked[:SHOWN_BEST]
    ]  # fmt: skip
    best = state.ranked[0].record.name
    after = f"<code>poma sweep promote {escape(state.uri)} {best}</code> makes a full-length job of the best."
    return section("Best trials", f'<div class="best">{table(header, rows)}</div><p class="note">{after}</p>')


def _pictures(state: SweepState) -> list[str]:
    if not state.ranked:
        return []
    colours = "Blue is the best trial, orange the worst; rest the mouse on a line for its values."
    absent = any(varied.key not in t.history.values for varied in state.varied for t in state.ranked)
    parallel = f"{colours} The best are on top of the last axis." + (
        " A line below an axis: that key was not varied in that trial." if absent else ""
    )
    which = "lowest" if state.record.mode == "min" else "highest"
    return [
        section("What goes with what", _figure(parallel_svg(state), parallel)),
        section(
            f"{state.record.metric} of each trial",
            _figure(metric_svg(state), f"Trials are placed by their {which} value, whenever they had it.")
            + _figure(metric_svg(state, over_time=True), "The same against the time that each has trained."),
        ),
    ]


def _figure(svg: str, caption: str) -> str:
    note = f'<p class="note">{escape(caption)}</p>'
    return f'<div class="trials"><figure class="scroll">{svg}</figure>{note}</div>'


def importances(state: SweepState) -> tuple[int, dict[str, Importance]]:
    """Of each parameter by its key, and at how many samples the trials were compared.

    A trial that was stopped early has no number at full length, and its last one is no match for those of
    the others. So all are compared at the same length: the longest that half of the trials have come to,
    and `LEAST_TRIALS` of them, if there are so many. Where the values have changed on the way (population
    based training), the last ones are taken.
    """
    curves = {trial.record.index: state.curve(trial) for trial in state.ranked}
    ends = sorted((samples[-1] for samples, _ in curves.values()), reverse=True)
    needed = max(LEAST_TRIALS, (len(ends) + 1) // 2)
    length = ends[min(needed, len(ends)) - 1] if ends else 0.0
    there = [t for t in state.ranked if curves[t.record.index][0][-1] >= length]
    at_length = {t.record.index: _at(length, *curves[t.record.index]) for t in there}
    found = {}
    for varied in state.varied:
        having = [trial for trial in there if varied.key in trial.history.values]
        values = [trial.history.values[varied.key] for trial in having]
        found[varied.key] = importance(values, [at_length[trial.record.index] for trial in having])
    return int(length), found


def _at(length: float, samples: Sequence[float], values: Sequence[float]) -> float:
    """The metric at that length. A trial that took over another's weights may be set back: the later
    number of the same length is the one of what it has become."""
    known = dict(zip(samples, values, strict=True))
    lengths = sorted(known)
    return float(np.interp(length, lengths, [known[at] for at in lengths]))


def _importance(state: SweepState) -> str:
    samples, found = importances(state)
    title = f"What {state.record.metric} depends on"
    if all(one.trials < LEAST_TRIALS for one in found.values()):
        most = max((one.trials for one in found.values()), default=0)
        said = f"Too few trials to tell: {most} can be compared, and fewer than {LEAST_TRIALS} show chance."
        return section(title, f'<p class="note">{said}</p>')
    names = {varied.key: varied.name for varied in state.varied}
    ordered = sorted(found.items(), key=lambda item: -(item[1].share or 0.0))
    rows = "".join(_share_row(names[key], key, one) for key, one in ordered)
    note = (
        f"Share of the variance of the trials' ranks at {samples:,} samples that each parameter explains by "
        "itself, corrected for its number of groups. What only two explain together is in neither. Where "
        "shuffled trials show as much in more than one of 20 cases, it may be chance."
    )
    shares = f'<div class="scroll"><table class="shares">{rows}</table></div>'
    return section(title, f'{shares}<p class="note">{escape(note)}</p>')


def _share_row(name: str, key: str, one: Importance) -> str:
    trials = f"of {one.trials} trials"
    if one.share is None:
        said = "too few trials to tell" if one.trials < LEAST_TRIALS else "does not vary enough to tell"
        shown, bar = "–", ""
    else:
        said = "may be chance" if one.may_be_chance else "hardly chance"
        said = said if one.share else "nothing to see"
        shown = f"{one.share:.0%}"
        bar = f'<i class="bar"><i style="width:{one.share:.1%}"></i></i>'
    where = f"<small>{escape(key)}</small>" if key != name else ""
    return (
        f'<tr><th scope="row">{escape(name)}{where}</th>'
        f"<td>{shown}{bar}</td><td>{said}<small>{trials}</small></td></tr>"
    )


def _failures(state: SweepState) -> str:
    failed: Sequence[Trial] = [trial for trial in state.trials if trial.record.status is Status.failed]
    texts = [
        folded(f"Trial {trial.record.name}", redact(trial.record.message or "It does not say why."))
        for trial in failed
    ]
    return section("Failed trials", "".join(texts)) if texts else ""


def _value(trial: Trial, varied: Varied) -> str:
    return value_text(trial.history.values[varied.key]) if varied.key in trial.history.values else "–"
