"""`poma runs list|page|show|logs|stop`: the state of runs, read from their folders alone."""

from __future__ import annotations

import argparse
import re
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from jobs.common.flags import storage_options
from jobs.display.text import aligned
from jobs.runs.compare import write_runs_page
from jobs.runs.state import RunState, read_run, runs_in
from jobs.runs.stop import stop
from jobs.runs.text import DAMAGED, STATE_HEADER, describe, state_cells
from plinth.errors import StorageError
from plinth.observe import failures
from plinth.observe.failures import FOLDER as LOGS
from plinth.observe.failures import first_cause
from plinth.observe.rank_logs import LOG_SUFFIX
from plinth.redaction import without_codes
from plinth.storage import Storage, StorageOptions
from plinth.storage.json_objects import DamagedObjectError

READERS = 16
"""Runs that are read at a time."""
LOG_NAME = re.compile(rf"{LOGS}/(?P<attempt>.+)-rank(?P<rank>\d+)\{LOG_SUFFIX}")


def run(arguments: argparse.Namespace) -> int:
    """Dispatch one of the actions; returns the exit code."""
    options = storage_options(arguments)
    if arguments.action == "list":
        return list_runs(arguments.uri, options)
    if arguments.action == "page":
        print(f"page: {write_runs_page(Storage.from_uri(arguments.uri, options), time.time())}")
        return 0
    if arguments.action == "show":
        return show(arguments.uri, options)
    if arguments.action == "stop":
        return stop(arguments.uri, options)
    return logs(arguments.uri, options, arguments.rank, arguments.lines)


def list_runs(output: str, options: StorageOptions) -> int:
    """One line for each run in the folder `output`; returns the exit code."""
    storage = Storage.from_uri(output, options)
    names = runs_in(storage)
    problems: list[str] = []
    rows = [list(STATE_HEADER)]
    with ThreadPoolExecutor(READERS) as pool:  # a run takes a score of requests, which wait for the store
        states = list(pool.map(partial(_state_of, storage), names))
    for name, state in zip(names, states, strict=True):
        if isinstance(state, DamagedObjectError):
            rows.append([name, DAMAGED, *["-"] * (len(STATE_HEADER) - 2)])
            problems.append(f"{name}: {state}")
        else:
            rows.append([name, *state_cells(state)])
    print("\n".join([*aligned(rows), *problems]))
    return 0


def _state_of(folder: Storage, name: str) -> RunState | DamagedObjectError:
    try:
        return read_run(folder.child(name), time.time())
    except DamagedObjectError as error:
        return error


def show(run_uri: str, options: StorageOptions) -> int:
    """Print the state of one run; returns the exit code."""
    state = read_run(Storage.from_uri(run_uri, options), time.time())
    print("\n".join(describe(state)))
    return 0


def logs(run_uri: str, options: StorageOptions, rank: int | None = None, lines: int = 0) -> int:
    """The messages of every rank of every attempt, and what happened first; returns the exit code.

    Args:
        rank: of this rank alone.
        lines: the last lines of each; 0 for all.
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
        print(without_codes("\n".join([title, *text])))
    for of_attempt in failures.by_attempt(failures.read_failures(storage)).values():
        print(f"== first cause in {of_attempt[0].attempt}\n{first_cause(of_attempt)}")
    return 0
