"""The contract between the engine and any model: a `Stage` is an `nn.Module` of this shape.

A step has two halves because the engine gathers between them. `forward` (per micro-batch) gives
the features that the global batch needs and the losses that are local to a sample; `contrast`
(once per step, without parameters) gives the losses over the gathered features. So one engine does
the plain step, the cached-feature two-pass and any world size.

Legend: n samples of a micro-batch, N samples of the global batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypedDict

import numpy as np
from torch import Tensor, nn

Batch = dict[str, Any]
"""Tensors by column name, all [n, ...], plus what `plinth.data.batches` adds: `sample_valid`
bool [n], `sample_key` int64 [n] (a hash of the id), `sample_id` list of n strings, `epoch` int64 [n]."""


@dataclass
class Encoded:
    """What one micro-batch yields.

    `features` are gathered over ranks and micro-batches in the order of the global batch and given to
    `contrast`; those that require grad get the exact gradient of the global loss.
    `sums[k]` is the sum over this micro-batch's valid samples of a loss local to a sample, `counts[k]`
    how many there are (no grad): the engine minimises sum over the global batch / count over it.
    `weights[k]` is the factor of that mean in the total loss. `logs` are averaged and only shown.
    """

    features: dict[str, Tensor] = field(default_factory=dict)
    sums: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, Tensor] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    logs: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class Contrast:
    """Losses over the global batch: `total` is differentiated, `terms` and `logs` are shown."""

    total: Tensor
    terms: dict[str, Tensor] = field(default_factory=dict)
    logs: dict[str, Tensor] = field(default_factory=dict)


class ParamGroup(TypedDict):
    """Parameters that share optimizer settings. `lr_scale` multiplies the schedule."""

    name: str
    params: list[nn.Parameter]
    weight_decay: float
    lr_scale: float


class Stage(Protocol):
    """One pretraining stage: the model with its loss, which knows nothing of its launcher.

    It may have a `read_ahead(batch)`: see `plinth.data.batches.open_batches`. It may have an `unsaved()`:
    names of parameters without gradient that no checkpoint holds, because whoever builds the stage has them
    from elsewhere; the job's record must then say which they are.
    """

    log_details: bool
    """Set by the engine before a step: whether costlier `logs` are wanted this time."""

    def prepare(self, batch: Batch) -> Batch:
        """A micro-batch that is still on the host, with what `forward` needs of the host: random draws,
        decisions by value. On a device, reading a number back would make the step wait."""
        ...

    def forward(self, batch: Batch, features_only: bool = False) -> Encoded:
        """Encode a micro-batch; with `features_only` (the first of two passes) without `sums`."""
        ...

    def contrast(self, features: dict[str, Tensor]) -> Contrast:
        """Losses over the gathered features, each [N, ...]. Pure, without parameters, in fp32."""
        ...

    def param_groups(self, weight_decay: float) -> list[ParamGroup]:
        """Every trainable parameter exactly once."""
        ...

    def ema_pairs(self) -> Mapping[str, str]:
        """Name of each trainable parameter that has a target copy -> name of that frozen copy."""
        ...

    def ema_momentum(self, progress: float) -> float:
        """Momentum of the target copy at `progress` in [0, 1] of the stage."""
        ...

    def columns(self) -> Iterable[str]:
        """Names of the columns that `forward` reads."""
        ...

    def fake_batch(self, n: int, seed: int = 0) -> Batch:
        """A random batch of the right shapes and dtypes, on the CPU."""
        ...

    def pictures(self, batch: Batch) -> dict[str, np.ndarray]:
        """Images uint8 [H, W, 3] for TensorBoard, from one batch."""
        ...
