"""One optimizer step of any Stage over the global batch, through DeepSpeed ZeRO.

The result does not depend on how the batch is spread: world size, micro-batches and ZeRO stage change only
speed and memory. See `globalbatch` for how the loss over the global batch gets exact gradients, `ema` for
the target copy, `guards` for numbers that are not finite, `fragments` for where the shards are.
"""

from __future__ import annotations

from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from plinth.errors import ConfigError
from plinth.train import globalbatch, guards
from plinth.train.ema import EmaShards
from plinth.train.fragments import Shards
from plinth.train.process import Process, prepare_deepspeed
from plinth.train.schedules import OptimConfig, lr_at
from plinth.train.stage import Batch, Contrast
from plinth.train.zero import Precision, ZeroConfig, deepspeed_config

ENCODED_FIELDS = ("features", "sums", "counts", "weights", "logs")
REPLAYS_CHECKED = 3  # not only the first: LoRA's dropout shows when its second factor has left zero


@dataclass
class StepResult:
    """What a step did; the same on every rank.

    `loss` is the total over the global batch, `terms` its parts before their weights, `logs` what the
    stage only shows. `step` counts from 0, `grad_norm` is before clipping.
    """

    step: int
    loss: float
    terms: dict[str, float]
    logs: dict[str, float]
    grad_norm: float
    lr: float


@dataclass(frozen=True)
class BatchSizes:
    """How a global batch is cut; `plinth.world.check_divisibility` says which sizes are possible."""

    global_batch_size: int
    micro_batch_size: int


class Engine:
    """Trains a stage on this rank, in step with the others.

    Args:
        stage: an `nn.Module` that satisfies `plinth.train.stage.Stage`. It is taken over: its parameters
            become DeepSpeed's shards and its forward returns a dict until `close`.
        total_steps: length of the stage, for the schedules.
        seed: of dropout and whatever else the stage draws from torch's generators.

    Raises:
        ConfigError: for settings out of range or sizes that do not divide.
    """

    def __init__(
        self,
        stage: Any,
        optim: OptimConfig,
        zero: ZeroConfig,
        process: Process,
        *,
        total_steps: int,
        sizes: BatchSizes,
        seed: int,
    ) -> None:
        optim.validate(total_steps)
        zero.validate()
        self.stage, self.optim, self.zero = stage, optim, zero
        self.process, self.world = process, process.world
        self.total_steps, self.sizes, self.seed = total_steps, sizes, seed
        self.completed_steps = self._first_step = 0
        self.micro_batches = self._micro_batches_per_rank()
        self.groups = [g for g in stage.param_groups(optim.weight_decay) if g["params"]]
        _check_groups(stage, self.groups)
        # Before DeepSpeed rounds the weights to bf16: the masters shall begin with the exact ones.
        exact = {} if zero.precision is Precision.fp32 else _copies(stage)
        self._linear = torch.nn.functional.linear
        self._deepspeed, self._hook = self._initialize()
        self.shards = Shards(self._deepspeed, stage, zero.stage, self.world)
        for fragment in self.shards.fragments if exact else []:
            whole = exact[fragment.name].view(-1)
            fragment.master.copy_(whole[fragment.start : fragment.start + len(fragment.master)])
        self.ema = EmaShards(self.shards, stage, stage.ema_pairs())
        self.ema.refresh()

    # -- the step ---------------------------------------------------------------------------------------

    def step(self, batch: Batch, details: bool = False) -> StepResult:
        """Train on this rank's rows of the global batch. Call it on all ranks.

        Args:
            details: have the stage compute its costlier logs too.

        Raises:
            NonFiniteError: on all ranks, before anything is applied. Gradients of the step may be left, so
                the engine is of no further use.
        """
        micro_batches = globalbatch.split(
            globalbatch.to_device(batch, self.process.device), self.sizes.micro_batch_size
        )
        if len(micro_batches) != self.micro_batches:
            raise ValueError(
                f"{len(micro_batches)} micro-batches in the batch, expected {self.micro_batches}"
            )
        self.stage.log_details = details
        lr = self._set_lr()
        two_pass = self.micro_batches > 1
        encoded = [self._encode(m, k, features_only=two_pass) for k, m in enumerate(micro_batches)]

        counts = globalbatch.all_sum(_added(encoded, "counts"), self.process.device, self.world)
        contrast, grads = self._contrast([e["features"] for e in encoded])
        sums, logs = self._backward(micro_batches, encoded, contrast, grads, counts)
        grad_norm = self._apply(micro_batches)
        self.ema.update(self.stage.ema_momentum(self.completed_steps / max(1, self.total_steps - 1)))

        result = self._result(lr, grad_norm, contrast, counts, sums, logs, encoded[0]["weights"])
        self.completed_steps += 1
        return result

    def _encode(self, batch: Batch, index: int, features_only: bool) -> dict[str, Any]:
        """One pass of one micro-batch; without a graph if only its features are wanted."""
        global_index = self.world.rank * self.micro_batches + index
        torch.manual_seed(globalbatch.pass_seed(self.seed, self.completed_steps, global_index))
        with torch.no_grad() if features_only else nullcontext():
            return self._deepspeed(batch, features_only=features_only)

    def _contrast(self, features: list[globalbatch.Features]) -> tuple[Contrast, list[globalbatch.Features]]:
        """The loss over the global batch, and its gradient for this rank's features by micro-batch."""
        gathered = globalbatch.gather(features, self.world)
        for rows in gathered.values():
            rows.requires_grad_(rows.is_floating_point())
        contrast = self.stage.contrast(gathered)
        grads = globalbatch.gradients(contrast.total, gathered, self.world, self.micro_batches)
        return contrast, grads

    def _backward(
        self,
        micro_batches: list[Batch],
        encoded: list[dict[str, Any]],
        contrast: Contrast,
        grads: list[globalbatch.Features],
        counts: dict[str, Tensor],
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Backward of every micro-batch; returns this rank's sums of local losses and of logs."""
        losses: list[Tensor] = []
        done: list[dict[str, Any]] = []
        for k, micro_batch in enumerate(micro_batches):
            if self.micro_batches == 1:
                current = encoded[k]
            else:
                current = self._encode(micro_batch, k, features_only=False)
                if self.completed_steps - self._first_step < REPLAYS_CHECKED:
                    guards.check_replay(encoded[k]["features"], current["features"])
            parts = [
                current["weights"][n] * s / counts[n].clamp(min=1).float() for n, s in current["sums"].items()
            ]
            losses.append(torch.stack(parts).sum() if parts else contrast.total.new_zeros(()))
            done.append({f: {n: v.detach() for n, v in current[f].items()} for f in ("sums", "logs")})
            last = k == self.micro_batches - 1
            if last and guards.is_bad_anywhere([contrast.total, *losses], self.world):
                self._fail("loss", micro_batches, encoded, losses)
            through_features = globalbatch.surrogate(current["features"], grads[k])
            loss = losses[-1] if through_features is None else losses[-1] + through_features
            self._deepspeed.set_gradient_accumulation_boundary(last)
            # DeepSpeed averages over ranks; our loss is already the share of the global one.
            self._deepspeed.backward(loss * self.world.world_size, scale_wrt_gas=False)
            losses[-1] = losses[-1].detach()
        return _added(done, "sums"), _added(done, "logs")

    def _apply(self, micro_batches: list[Batch]) -> float:
        """Clip and step, unless the norm of the gradient is not finite; returns the norm."""
        if self.zero.stage == 0:  # the one stage where DeepSpeed would go on
            found = [p.grad for p in self.stage.parameters() if p.grad is not None]
            norm = float(torch.nn.utils.get_total_norm(found))
            if not np.isfinite(norm):
                self._fail("gradient norm", micro_batches)
            self._deepspeed.step()
            return norm
        self._deepspeed.step()
        if not self._deepspeed.was_step_applied():  # the norm is summed over ranks: all skipped, or none
            self._fail("gradient norm", micro_batches)
        return float(self._deepspeed.get_global_grad_norm())

    def _fail(
        self,
        what: str,
        micro_batches: list[Batch],
        encoded: list[dict[str, Any]] | None = None,
        losses: list[Tensor] | None = None,
    ) -> None:
        ids: list[str] = []
        for k, batch in enumerate(micro_batches):
            if encoded is None or losses is None:
                ids += guards.suspects(batch, {}, torch.tensor(torch.nan))
            else:
                ids += guards.suspects(batch, encoded[k]["features"], losses[k])
        guards.fail(what, self.completed_steps, ids, self.world)

    def _result(
        self,
        lr: float,
        grad_norm: float,
        contrast: Contrast,
        counts: dict[str, Tensor],
        sums: dict[str, Tensor],
        logs: dict[str, Tensor],
        weights: dict[str, float],
    ) -> StepResult:
        device, passes = self.process.device, self.micro_batches * self.world.world_size
        local = {
            n: s / counts[n].clamp(min=1) for n, s in globalbatch.all_sum(sums, device, self.world).items()
        }
        shown = {n: v / passes for n, v in globalbatch.all_sum(logs, device, self.world).items()}
        loss = float(contrast.total.detach()) + sum(weights[n] * float(v) for n, v in local.items())
        return StepResult(
            step=self.completed_steps,
            loss=loss,
            terms={n: float(v) for n, v in {**contrast.terms, **local}.items()},
            logs={n: float(v) for n, v in {**contrast.logs, **shown}.items()},
            grad_norm=grad_norm,
            lr=lr,
        )

    # -- around the step --------------------------------------------------------------------------------

    def restore(self, step: int) -> None:
        """Go on after `step` steps; the tensors of the shards have been filled by the caller."""
        self.shards.set_adam_step(step)
        self.shards.push()
        self.ema.refresh()
        self.completed_steps = self._first_step = step

    def adopt_weights(self) -> None:
        """Begin with masters that the caller has filled: the target copy starts as a copy of them."""
        self.shards.push()
        self.ema.restart()

    def pictures(self, batch: Batch) -> dict[str, np.ndarray]:
        """The stage's pictures of the first micro-batch. Call it on all ranks: stage 3 gathers weights."""
        first = globalbatch.split(batch, self.sizes.micro_batch_size)[0]
        self.stage.eval()
        try:
            with torch.no_grad():
                return self.stage.pictures(globalbatch.to_device(first, self.process.device))
        finally:
            self.stage.train()

    def close(self) -> None:
        """Give up DeepSpeed's hooks and buffers; the engine cannot be used afterwards."""
        self._hook.remove()
        self._deepspeed.destroy()
        # Stage 3 replaces it for the whole process, so a later stage would round otherwise.
        torch.nn.functional.linear = self._linear

    def _set_lr(self) -> float:
        lr = lr_at(self.optim, self.completed_steps, self.total_steps)
        for group, settings in zip(self._deepspeed.optimizer.param_groups, self.groups, strict=True):
            group["lr"] = lr * settings["lr_scale"]
        return lr

    def _micro_batches_per_rank(self) -> int:
        size, micro = self.sizes.global_batch_size, self.sizes.micro_batch_size
        if size % (self.world.world_size * micro):
            raise ConfigError(
                f"global_batch_size {size} is not a multiple of {self.world.world_size} workers "
                f"times micro_batch_size {micro}.",
                "Change one of the three.",
            )
        return self.world.gradient_accumulation_steps(size, micro)

    def _initialize(self) -> tuple[Any, Any]:
        prepare_deepspeed()
        import deepspeed

        optim = self.optim
        optimizer = torch.optim.AdamW(
            [dict(g) for g in self.groups], lr=optim.lr, betas=(optim.beta1, optim.beta2), eps=optim.eps
        )
        self.stage.train()
        # DeepSpeed looks for tensors in tuples, lists and dicts, not in dataclasses.
        hook = self.stage.register_forward_hook(
            lambda module, inputs, output: {name: getattr(output, name) for name in ENCODED_FIELDS}
        )
        config = deepspeed_config(self.zero, optim, self.sizes.micro_batch_size, self.micro_batches)
        with redirect_stdout(StringIO()):  # stage 1 in bf16 prints its memory a dozen times
            engine, *_ = deepspeed.initialize(model=self.stage, optimizer=optimizer, config=config)
        return engine, hook


def _added(encoded: list[dict[str, Any]], field: str) -> dict[str, Tensor]:
    """Sum over micro-batches of the scalars in `field`, by name."""
    names = encoded[0][field]
    return {n: torch.stack([e[field][n].detach().double() for e in encoded]).sum() for n in names}


def _copies(stage: nn.Module) -> dict[str, Tensor]:
    return {n: p.detach().float().clone() for n, p in stage.named_parameters() if p.requires_grad}


def _check_groups(stage: nn.Module, groups: list[Any]) -> None:
    """Every trainable parameter in exactly one group, and none of shape ()."""
    listed = [id(p) for group in groups for p in group["params"]]
    for name, p in stage.named_parameters():
        expected = 1 if p.requires_grad else 0
        if listed.count(id(p)) != expected:
            raise ValueError(f"parameter {name} is in {listed.count(id(p))} groups, expected {expected}")
        if p.ndim == 0:
            raise ValueError(f"parameter {name} has shape (), which ZeRO cannot shard: give it shape (1,)")
