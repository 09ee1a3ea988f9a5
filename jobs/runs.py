"""`poma runs list|show|logs|stop`: how runs are doing, from their folders alone."""

from __future__ import annotations

import argparse
import re
import time

from jobs.ledger_table import aligned, ledger_lines
from jobs.run_state import RunState, StageState, is_run, read_run
from jobs.shards import storage_options
from jobs.stop import stop
from plinth.errors import StorageError
from plinth.storage import Storage, StorageOptions
from plinth.train import failures
from plinth.train.failures import FOLDER as LOGS
from plinth.train.failures import first_cause, utc
from plinth.train.flightlog import LOG_SUFFIX
from plinth.train.incidents import Incident
from plinth.train.metrics import duration

SHOWN_IDS = 4
SHOWN_CHECKPOINTS = 6
LOG_NAME = re.compile(rf"{LOGS}/(?P<attempt>.+)-rank(?P<rank>\d+)\{LOG_SUFFIX}")


def run(arguments: argparse.Namespace) -> int:
    """Dispatch one of the actions; returns the exit code."""
    options = storage_options(arguments)
    if arguments.action == "list":
        return list_runs(arguments.uri, options)
    if arguments.action == "show":
        return show(arguments.uri, options)
    if arguments.action == "stop":
        return stop(arguments.uri, options)
    return logs(arguments.uri, options, arguments.rank, arguments.lines)


def list_runs(output: str, options: StorageOptions) -> int:
    """One line for each run in the folder `output`; returns the exit code."""
    storage = Storage.from_uri(output, options)
    storage.check()
    keys: dict[str, set[str]] = {}
    for key, _ in storage.list():
        name, _, rest = key.partition("/")
        keys.setdefault(name, set()).add(rest)
    names = [name for name, below in keys.items() if is_run(below)]
    if not names:
        raise StorageError(f"{storage.uri} holds no runs.", "Give the output of a pretraining job.")
    rows = [["run", "status", "where", "loss", "wall time", "productive", "restarts"]]
    for name in names:
        state = read_run(storage.child(name), time.time())
        book = state.ledger
        rows.append([
            name, state.status, state.where, loss_text(state.stage), duration(book.wall_s),
            f"{book.share('productive'):.0%}", str(book.restarts),
        ])  # fmt: skip
    print("\n".join(aligned(rows)))
    return 0


def show(run_uri: str, options: StorageOptions) -> int:
    """What is known of one run; returns the exit code."""
    state = read_run(Storage.from_uri(run_uri, options), time.time())
    print("\n".join(describe(state)))
    return 0


def logs(run_uri: str, options: StorageOptions, rank: int | None = None, lines: int = 0) -> int:
    """The messages of every rank of every attempt, and what happened first; returns the exit code.

    Args:
        rank: only of this one.
        lines: only so many of the last of each; 0 for all.
    """
    storage = Storage.from_uri(run_uri, options)
    storage.check()
    texts = []
    for key, _ in storage.list(LOGS):
        found = LOG_NAME.fullmatch(key)
        if found and rank in (None, int(found["rank"])):
            text = storage.read(key).decode(errors="replace").splitlines()
            texts.append((text[:1], f"== {found['attempt']}, rank {found['rank']}", text[-lines:]))
    if not texts:
        which = "" if rank is None else f" of rank {rank}"
        raise StorageError(
            f"{storage.uri} has no logs{which}.", "They come with the first checkpoint or failure."
        )
    for _, title, text in sorted(texts):  # a log's first line begins with its time
        print("\n".join([title, *text]))
    for of_attempt in failures.by_attempt(failures.read_failures(storage)).values():
        print(f"== first cause in {of_attempt[0].attempt}\n{first_cause(of_attempt)}")
    return 0


def describe(state: RunState) -> list[str]:
    """`show`, as lines."""
    said = f"{state.status}, {state.detail}" if state.detail else state.status
    lines = [f"{state.uri}: {said}", ""]
    for stage in state.stages:
        total = f" of {stage.total_steps}" if stage.total_steps is not None else ""
        at = f", {utc(stage.time)}" if stage.time is not None else ""
        lines.append(f"{stage.name:8} step {stage.step}{total}, loss {loss_text(stage)}{at}")
        lines.append(f"{'':8} {checkpoints_text(stage)}")
    if state.slow:
        lines += ["", state.slow]
    if book := ledger_lines(state.ledger):
        lines += ["", *book]
    happened = [(stage.name, incident) for stage in state.stages for incident in stage.incidents]
    if happened:
        lines += ["", "incidents", *(f"  {incident_text(name, incident)}" for name, incident in happened)]
    if state.failures:
        lines += ["", "failures, each with its first cause"]
        lines += [f"  {line}" for found in state.failures for line in first_cause(found).splitlines()]
    return lines


def incident_text(stage: str, incident: Incident) -> str:
    """One line: where, what, what was done, which samples."""
    more = len(incident.sample_ids) - SHOWN_IDS
    ids = ", ".join(incident.sample_ids[:SHOWN_IDS]) + (f" and {more} more" if more > 0 else "")
    return f"{stage} step {incident.step}, {utc(incident.time)}: {incident.kind}; {incident.action}; {ids}"


def checkpoints_text(stage: StageState) -> str:
    """Their steps, the last few."""
    shown = ", ".join(str(step) for step in stage.committed[-SHOWN_CHECKPOINTS:]) or "none"
    earlier = len(stage.committed) - SHOWN_CHECKPOINTS
    unfinished = len(stage.checkpoints) - len(stage.committed)
    return (
        f"checkpoints {f'{earlier} earlier, ' if earlier > 0 else ''}{shown}"
        + (f"; {unfinished} unfinished" if unfinished else "")
    )  # fmt: skip


def loss_text(stage: StageState | None) -> str:
    """The last loss."""
    return "-" if stage is None or stage.loss is None else f"{stage.loss:.4f}"
