"""A run's state as lines of text."""

from __future__ import annotations

from jobs.display.ledger import ledger_lines
from jobs.runs.state import RunState, StageState
from plinth.observe.failures import first_cause, utc
from plinth.observe.incidents import Incident
from plinth.observe.ledger import PRODUCTIVE
from plinth.observe.metrics import duration
from plinth.redaction import printable

SHOWN_IDS = 4
SHOWN_CHECKPOINTS = 6
STATE_HEADER = ("run", "status", "where", "loss", "wall time", "productive", "restarts")
DAMAGED = "damaged"
"""Status of a run of which a file cannot be read."""


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


def state_cells(state: RunState) -> list[str]:
    """In the order of `STATE_HEADER`, without the name."""
    book = state.ledger
    return [
        state.status, state.where or "-", loss_text(state.stage), duration(book.wall_s),
        f"{book.share(PRODUCTIVE):.0%}", str(book.restarts),
    ]  # fmt: skip


def incident_text(stage: str, incident: Incident) -> str:
    """One line: where, what, what was done, which samples."""
    more = len(incident.sample_ids) - SHOWN_IDS
    ids = ", ".join(map(printable, incident.sample_ids[:SHOWN_IDS])) + (
        f" and {more} more" if more > 0 else ""
    )
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
