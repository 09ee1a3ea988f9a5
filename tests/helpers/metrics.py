"""Metrics of made-up steps, and a tracker that keeps what it is sent."""

from __future__ import annotations

from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

from plinth.observe.metrics import StepRecord

PLANTED = "pl4nted-s3cret"
"""A secret that tests put into the environment, and that must be in nothing that is written or sent."""


def step_record(step: int, **changes: Any) -> StepRecord:
    """What a step leaves; the loss falls, the digest is the step's number."""
    values: dict[str, Any] = {
        "step": step, "epoch": step // 4, "step_in_epoch": step % 4, "loss": 2.0 / (step + 1),
        "terms": {"view": 1.0}, "logs": {"std": 0.5}, "grad_norm": 0.25, "lr": 1e-3, "digest": f"{step:04x}",
        "world_size": 2, "samples": 8, "step_s": 0.5, "data_wait_s": 0.1, "checkpoint_s": 0.0,
        "memory_bytes": 10, "time": 0.0,
    }  # fmt: skip
    return StepRecord(**{**values, **changes})


class FakeWandb(ModuleType):
    """Stands in for the package: keeps what it is sent, and fails at step 3."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.__spec__ = ModuleSpec("wandb", None)  # as of a package that is installed
        self.inits: list[dict[str, Any]] = []
        self.rows: list[dict[str, float]] = []
        self.exit_codes: list[int] = []
        self.Settings = SimpleNamespace

    def init(self, settings: Any, dir: str, **told: Any) -> Any:
        self.inits.append(told)
        return SimpleNamespace(define_metric=lambda *_, **__: None, log=self.log, finish=self.finish)

    def log(self, row: dict[str, float]) -> None:
        if row["step"] == 3:
            raise ConnectionError(f"gone: token={PLANTED}")
        self.rows.append(row)

    def finish(self, exit_code: int) -> None:
        self.exit_codes.append(exit_code)
