"""Evaluation beside the training: each checkpoint once, whatever is killed; never in the workers' way."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from plinth.checkpoint import evaluations, store
from plinth.checkpoint.config import CheckpointConfig
from plinth.checkpoint.evaluations import Evaluated, Evaluation
from plinth.checkpoint.maintenance import retain
from plinth.errors import ConfigError, DataError
from plinth.launch.beside import Beside
from plinth.launch.config import BesideConfig
from plinth.train.resolve import ResolvedStage
from tests.helpers.toy.run import toy_run

EVALUATED = Evaluated("rooms 1a2b", every_steps=4, last_step=12, keep_waiting=3)
CONFIG = BesideConfig(look_every_s=0.01, wait_s=5.0, yield_after_s=0.0)


@dataclass
class Tasks:
    """Tasks that end at the look after the one that began them."""

    answer: Callable[[int], Mapping[str, float] | None] = lambda step: {"R@1-1": step / 100}
    room: bool = True
    started: list[tuple[str, int]] = field(default_factory=list)
    cancelled: int = 0

    def has_room(self) -> bool:
        return self.room

    def start(self, stage: str, step: int) -> None:
        self.started.append((stage, step))

    def result(self) -> Mapping[str, float] | None:
        return self.answer(self.started[-1][1])

    def cancel(self) -> None:
        self.cancelled += 1


@pytest.fixture
def stage(tmp_path: Path) -> ResolvedStage:
    """Of 12 steps, with a checkpoint every two of them that nobody deletes."""
    run = toy_run(tmp_path, checkpoint=CheckpointConfig(every_steps=2, keep_last=1), steps_before=100)
    return replace(run, evaluated=EVALUATED)


def commit(stage: ResolvedStage, *steps: int, token: str = "t") -> None:
    for step in steps:
        store.commit(stage.checkpoints, step, {}, {"step": step, "metrics": {"loss": 1.0}}, token)


def beside(stage: ResolvedStage, tasks: Tasks, config: BesideConfig = CONFIG, trains: bool = True) -> Beside:
    return Beside(config, [stage], stage.storage, tasks, lambda: trains)


def looks(evaluating: Beside, count: int = 12) -> None:
    for _ in range(count):
        evaluating.look()


def results(stage: ResolvedStage) -> dict[int, dict[str, float]]:
    return {one.step: one.numbers for one in evaluations.read(stage.checkpoints)}


def test_each_checkpoint_that_is_due_is_evaluated_once_in_order(stage: ResolvedStage) -> None:
    commit(stage, 2, 4, 6, 8)
    tasks = Tasks()
    looks(beside(stage, tasks))
    assert tasks.started == [("toy", 4), ("toy", 8)]
    assert results(stage) == {4: {"R@1-1": 0.04}, 8: {"R@1-1": 0.08}}
    assert evaluations.held(stage.checkpoints) == set()


def test_the_next_start_makes_up_for_what_is_missing_and_repeats_nothing(stage: ResolvedStage) -> None:
    commit(stage, 4, 8)
    tasks = Tasks()
    looks(beside(stage, tasks), 2)  # 4 is done, 8 has begun: then the driver is killed
    assert tasks.started == [("toy", 4), ("toy", 8)]
    assert evaluations.held(stage.checkpoints) == {8}
    commit(stage, 12)
    after = Tasks()
    looks(beside(stage, after))
    assert after.started == [("toy", 8), ("toy", 12)]
    assert sorted(results(stage)) == [4, 8, 12]


def test_a_checkpoint_that_was_written_anew_is_another_one(stage: ResolvedStage) -> None:
    commit(stage, 4, 8)
    looks(beside(stage, Tasks()))
    commit(stage, 8, token="another")
    tasks = Tasks(lambda step: {"R@1-1": 0.5})
    looks(beside(stage, tasks))
    assert tasks.started == [("toy", 8)]
    assert results(stage) == {4: {"R@1-1": 0.04}, 8: {"R@1-1": 0.5}}


def test_results_on_other_data_do_not_count_and_stay(stage: ResolvedStage) -> None:
    commit(stage, 4)
    evaluations.write(stage.checkpoints, [Evaluation(4, "t", "other rooms", {"R@1-1": 1.0})])
    looks(beside(stage, Tasks()))
    assert [(one.data, one.step) for one in evaluations.read(stage.checkpoints)] == [
        ("other rooms", 4),
        ("rooms 1a2b", 4),
    ]


def test_a_failed_evaluation_is_a_warning_and_tried_at_the_next_start(
    stage: ResolvedStage, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(step: int) -> Mapping[str, float]:
        if step == 4:
            raise DataError("rooms: no captions.")
        return {"R@1-1": 1.0}

    commit(stage, 4, 8)
    tasks = Tasks(fails)
    looks(beside(stage, tasks))
    assert tasks.started == [("toy", 4), ("toy", 8)]
    assert list(results(stage)) == [8]
    (warning,) = [one for one in caplog.records if one.levelno == logging.WARNING]
    assert "evaluation of step 4 failed: rooms: no captions." in warning.getMessage()
    looks(beside(stage, Tasks()))
    assert sorted(results(stage)) == [4, 8]


def test_one_that_does_not_end_is_ended(stage: ResolvedStage, caplog: pytest.LogCaptureFixture) -> None:
    commit(stage, 4)
    tasks = Tasks(lambda step: None)
    looks(beside(stage, tasks, replace(CONFIG, limit_s=1e-9)))
    assert (tasks.started, tasks.cancelled) == ([("toy", 4)], 1)
    assert "did not end within 1e-09 s" in caplog.text


@pytest.mark.parametrize(("room", "trains"), [(False, True), (True, False)])
def test_it_waits_for_room_and_for_the_workers(stage: ResolvedStage, room: bool, trains: bool) -> None:
    commit(stage, 4)
    tasks = Tasks(room=room)
    looks(beside(stage, tasks, trains=trains))
    assert tasks.started == []


def test_workers_that_are_started_again_go_first(stage: ResolvedStage) -> None:
    commit(stage, 4)
    trains, tasks = [True], Tasks(lambda step: None)
    evaluating = Beside(CONFIG, [stage], stage.storage, tasks, lambda: trains[0])
    looks(evaluating, 1)
    trains[0] = False
    looks(evaluating)
    assert (tasks.started, tasks.cancelled) == ([("toy", 4)], 1)
    assert evaluations.held(stage.checkpoints) == set()
    trains[0], tasks.answer = True, lambda step: {"R@1-1": 1.0}
    looks(evaluating)
    assert results(stage) == {4: {"R@1-1": 1.0}}, "done later: it was not its fault"


def test_a_short_gap_between_two_groups_costs_no_evaluation(stage: ResolvedStage) -> None:
    commit(stage, 4)
    trains, tasks = [True], Tasks(lambda step: None)
    evaluating = Beside(replace(CONFIG, yield_after_s=60.0), [stage], stage.storage, tasks, lambda: trains[0])
    looks(evaluating, 1)
    trains[0] = False
    looks(evaluating)
    assert tasks.cancelled == 0


def test_the_end_evaluates_the_last_checkpoint_first_and_then_deletes_what_waited(
    stage: ResolvedStage,
) -> None:
    commit(stage, 4, 8, 12)
    tasks = Tasks()
    beside(stage, tasks, trains=False).finish(lambda: False)
    assert tasks.started == [("toy", 12), ("toy", 8), ("toy", 4)]
    assert [info.step for info in store.list_checkpoints(stage.checkpoints)] == [12]
    assert sorted(results(stage)) == [4, 8, 12], "results outlive their checkpoints"


@pytest.mark.parametrize(("wait_s", "asked"), [(0.0, False), (60.0, True)])
def test_the_end_waits_no_longer_than_it_may(
    stage: ResolvedStage, wait_s: float, asked: bool, caplog: pytest.LogCaptureFixture
) -> None:
    commit(stage, 12)
    tasks = Tasks(lambda step: None)
    beside(stage, tasks, replace(CONFIG, wait_s=wait_s)).finish(lambda: asked)
    assert tasks.cancelled == 1
    assert "some checkpoints are not evaluated" in caplog.text
    assert evaluations.held(stage.checkpoints) == set()


def test_retention_leaves_what_waits_and_what_is_being_evaluated(stage: ResolvedStage) -> None:
    commit(stage, 2, 4)
    looks(beside(stage, Tasks(lambda step: None)), 1)  # 4 is under way, and takes long
    commit(stage, 6, 8, 10)
    many = replace(EVALUATED, keep_waiting=1)
    retain(stage.checkpoints, stage.checkpoint, evaluated=many)
    assert [info.step for info in store.list_checkpoints(stage.checkpoints)] == [4, 8, 10]


def test_the_best_are_kept_by_what_evaluations_found(stage: ResolvedStage) -> None:
    commit(stage, 4, 8, 12)
    looks(beside(stage, Tasks(lambda step: {"R@1-1": {4: 0.2, 8: float("nan"), 12: 0.1}[step]})))
    settings = replace(stage.checkpoint, keep_best=1, best_metric="R@1-1")
    retain(stage.checkpoints, replace(settings, best=settings.best.highest), evaluated=EVALUATED)
    assert [info.step for info in store.list_checkpoints(stage.checkpoints)] == [4, 12]


def test_tensorboard_has_them_by_the_steps_of_the_run(stage: ResolvedStage, tmp_path: Path) -> None:
    commit(stage, 4, 8)
    beside(stage, Tasks()).finish(lambda: False)
    board = EventAccumulator(str(tmp_path / "run" / "toy" / "tensorboard" / "evaluation"))
    board.Reload()
    shown = [(one.step, round(one.value, 6)) for one in board.Scalars("evaluation/R@1-1")]
    assert shown == [(104, 0.04), (108, 0.08)]


def test_torn_lines_are_no_results(stage: ResolvedStage) -> None:
    commit(stage, 4)
    stage.checkpoints.write(evaluations.LINES_KEY, b'{"step": 4, "token": "t", "da\n[1]\n{"step": "4"}\n')
    looks(beside(stage, Tasks()))
    assert results(stage) == {4: {"R@1-1": 0.04}}


@pytest.mark.parametrize(
    ("key", "value"), [("num_cpus", 0.0), ("num_gpus", -1.0), ("look_every_s", 0.0), ("ray_label", "role")]
)
def test_settings_out_of_range_are_refused(key: str, value: float | str) -> None:
    with pytest.raises(ConfigError, match=rf"evaluate_beside\.{key} is "):
        replace(BesideConfig(), **{key: value}).validate("evaluate_beside")
