"""One optimizer step of any Stage over the global batch, through DeepSpeed ZeRO.

The result does not depend on how the batch is split: world size, micro-batches and ZeRO stage change only
speed and memory. A step is

    first pass    features of every micro-batch (`global_batch` explains the two passes)
    contrast      the loss over the gathered features, and its gradient for this rank's features
    backward      every micro-batch, through its features and its local losses; twice if `exact_sums` asks
    apply         clip, step; nothing is applied if a number is not finite (`guards`)
    update        the target copy (`ema`)
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from plinth.engine import global_batch, guards
from plinth.engine.config import OptimConfig, Precision, ZeroConfig
from plinth.engine.deepspeed_internals import replace_grad_norm
from plinth.engine.ema import EmaShards
from plinth.engine.exact_sums import ExactSums
from plinth.engine.grad_norm import ExactNorm
from plinth.engine.process import Process, prepare_deepspeed, without_prints
from plinth.engine.schedules import lr_at
from plinth.engine.stage import Batch, Contrast
from plinth.engine.zero_config import deepspeed_config
from plinth.engine.zero_shards import ZeroShards
from plinth.world import check_divisibility

ENCODED_FIELDS = ("features", "sums", "counts", "weights", "logs")
REPLAYS_CHECKED = 3  # more than one: LoRA's dropout has no effect until its second factor has left zero


@dataclass
class StepResult:
    """What a step did; the same on every rank.

    `loss` is the total over the global batch, `terms` are its parts before their weights, `logs` are shown
    only. `step` counts from 0, `grad_norm` is before clipping.
    """

    step: int
    loss: float
    terms: dict[str, float]
    logs: dict[str, float]
    grad_norm: float
    lr: float


@dataclass
class _Work:
    """The state of a step; lists are by micro-batch of this rank."""

    micro_batches: list[Batch]
    encoded: list[dict[str, Any]]
    """Outputs of the first pass."""
    counts: dict[str, Tensor]
    """How many samples each local loss has in the global batch."""
    contrast: Contrast = field(init=False)
    grads: list[global_batch.Features] = field(init=False)
    """d contrast / d features."""
    losses: list[Tensor] = field(default_factory=list)
    """Local losses, this rank's share of the global mean, weighted."""
    shown: list[dict[str, Any]] = field(default_factory=list)
    """`sums` and `logs` without their graphs."""


@dataclass(frozen=True)
class EngineConfig:
    """The settings of a stage's training; `plinth.world.check_divisibility` says which sizes are possible."""

    optim: OptimConfig
    zero: ZeroConfig
    global_batch_size: int
    micro_batch_size: int
    total_steps: int
    """Length of the stage, for the schedules."""
    seed: int
    """For dropout and all else that the stage draws from torch's generators."""


class Engine:
    """Trains a stage on this rank, in step with the others.

    Args:
        stage: an `nn.Module` that satisfies `plinth.engine.stage.Stage`. Until `close` the engine owns it:
            its parameters become DeepSpeed's shards and its forward returns a dict.

    Raises:
        ConfigError: for settings out of range or sizes that do not divide.
    """

    def __init__(self, stage: Any, config: EngineConfig, process: Process) -> None:
        self.optim, self.zero, self.total_steps = config.optim, config.zero, config.total_steps
        self.optim.validate(self.total_steps)
        self.zero.validate()
        self.stage, self.config, self.process, self.world = stage, config, process, process.world
        self.completed_steps = self._first_step = 0
        size, micro_size = config.global_batch_size, config.micro_batch_size
        check_divisibility(self.world.world_size, self.world.world_size, size, micro_size)
        self.micro_batches = self.world.gradient_accumulation_steps(size, micro_size)
        self.groups = [g for g in stage.param_groups(self.optim.weight_decay) if g["params"]]
        _check_groups(stage, self.groups)
        # Before DeepSpeed rounds the weights to bf16, so the fp32 masters start from the unrounded weights.
        exact = {} if self.zero.precision is Precision.fp32 else _copies(stage)
        self._linear = torch.nn.functional.linear
        self.sums = self._exact_sums()
        self._deepspeed, self._hook, self._norm = self._initialize()
        self.shards = ZeroShards(self._deepspeed, stage, self.zero.stage, self.world)
        for shard in self.shards.params if exact else []:
            whole = exact[shard.name].view(-1)
            shard.master.copy_(whole[shard.start : shard.start + len(shard.master)])
        self.ema = EmaShards(self.shards, stage, stage.ema_pairs())
        self.ema.refresh()

    # -- the step ---------------------------------------------------------------------------------------

    def step(self, batch: Batch, details: bool = False) -> StepResult:
        """Train on this rank's rows of the global batch. Call it on all ranks.

        Args:
            details: have the stage compute its costlier logs too.

        Raises:
            NonFiniteError: on all ranks, before anything is applied. Gradients of the step may be left, so
                the engine cannot be used further.
        """
        self.stage.log_details = details
        lr = self._set_lr()
        work = self._first_pass(batch)
        self._contrast(work)
        self._backward(work)
        if self.sums and not self.sums.settle():
            self._discard()
            self._backward(work, again=True)
            self.sums.settle()
        grad_norm = self._apply(work)
        self.ema.update(self.stage.ema_momentum(self.completed_steps / max(1, self.total_steps - 1)))
        result = self._result(work, lr, grad_norm)
        self.completed_steps += 1
        return result

    def _first_pass(self, batch: Batch) -> _Work:
        """Features of all micro-batches, with their graph only if there is one micro-batch."""
        on_device = global_batch.to_device(batch, self.process.device)
        micro_batches = global_batch.split(on_device, self.config.micro_batch_size)
        if len(micro_batches) != self.micro_batches:
            raise ValueError(
                f"the batch has {len(micro_batches)} micro-batches, expected {self.micro_batches}"
            )
        two_pass = self.micro_batches > 1
        encoded = [self._encode(m, k, features_only=two_pass) for k, m in enumerate(micro_batches)]
        counts = global_batch.all_sum(_added(encoded, "counts"), self.process.device, self.world)
        return _Work(micro_batches, encoded, counts)

    def _encode(self, batch: Batch, index: int, features_only: bool) -> dict[str, Any]:
        """One pass of one micro-batch; without a graph if only its features are wanted."""
        global_index = self.world.rank * self.micro_batches + index
        torch.manual_seed(global_batch.pass_seed(self.config.seed, self.completed_steps, global_index))
        with torch.no_grad() if features_only else nullcontext():
            return self._deepspeed(batch, features_only=features_only)

    def _contrast(self, work: _Work) -> None:
        """The loss over the global batch, and its gradient for this rank's features."""
        gathered = global_batch.gather([e["features"] for e in work.encoded], self.world)
        for rows in gathered.values():
            rows.requires_grad_(rows.is_floating_point())
        work.contrast = self.stage.contrast(gathered)
        work.grads = global_batch.gradients(work.contrast.total, gathered, self.world, self.micro_batches)

    def _backward(self, work: _Work, again: bool = False) -> None:
        """Every micro-batch backward, through its features and its local losses; `again` if this was done
        before, so that the graphs are gone."""
        work.losses, work.shown = [], []
        for k, micro_batch in enumerate(work.micro_batches):
            encoded = work.encoded[k]
            if self.micro_batches > 1 or again:
                encoded = self._encode(micro_batch, k, features_only=False)
                if self.completed_steps - self._first_step < REPLAYS_CHECKED:
                    guards.check_replay(work.encoded[k]["features"], encoded["features"])
            parts = [
                encoded["weights"][name] * total / work.counts[name].clamp(min=1).float()
                for name, total in encoded["sums"].items()
            ]
            loss = torch.stack(parts).sum() if parts else work.contrast.total.new_zeros(())
            work.losses.append(loss.detach())
            work.shown.append({f: {n: v.detach() for n, v in encoded[f].items()} for f in ("sums", "logs")})
            is_last = k == self.micro_batches - 1
            if is_last and guards.is_bad_anywhere([work.contrast.total, *work.losses], self.world):
                self._fail("loss", work)
            through_features = global_batch.surrogate(encoded["features"], work.grads[k])
            if through_features is not None:
                loss = loss + through_features
            self._deepspeed.set_gradient_accumulation_boundary(is_last)
            # DeepSpeed averages over ranks, but the loss is already this rank's share of the global one.
            share = 1 if self.sums else self.world.world_size  # exact sums multiply the gradient instead
            self._deepspeed.backward(loss * share, scale_wrt_gas=False)

    def _discard(self) -> None:
        """Drop the gradients of this step."""
        if self.zero.stage == 0:
            self._deepspeed.zero_grad()
            return
        self._norm.refuses = True  # DeepSpeed then skips its step and drops the gradients
        self._deepspeed.step()
        self._norm.refuses = False

    def _apply(self, work: _Work) -> float:
        """Clip and step, unless the norm of the gradient is not finite; returns the norm."""
        if self.zero.stage == 0:  # the only stage at which DeepSpeed would apply it
            found = [p.grad for p in self.stage.parameters() if p.grad is not None]
            norm = float(torch.nn.utils.get_total_norm(found))
            if not np.isfinite(norm):
                self._fail("gradient norm", work)
            self._deepspeed.step()
            return norm
        self._deepspeed.step()
        if not self._deepspeed.was_step_applied():  # the norm is summed over ranks: all skipped, or none
            self._fail("gradient norm", work)
        return float(self._deepspeed.get_global_grad_norm())

    def _fail(self, what: str, work: _Work) -> None:
        """Raise on all ranks. A gradient does not tell which sample is to blame, so all are named."""
        ids: list[str] = []
        for k, micro_batch in enumerate(work.micro_batches):
            of_loss = what == "loss"
            features = work.encoded[k]["features"] if of_loss else {}
            loss = work.losses[k] if of_loss else torch.tensor(torch.nan)
            ids += guards.suspects(micro_batch, features, loss)
        guards.fail(what, self.completed_steps, ids, self.world)

    def _result(self, work: _Work, lr: float, grad_norm: float) -> StepResult:
        device, passes = self.process.device, self.micro_batches * self.world.world_size
        sums = global_batch.all_sum(_added(work.shown, "sums"), device, self.world)
        logs = global_batch.all_sum(_added(work.shown, "logs"), device, self.world)
        local = {name: total / work.counts[name].clamp(min=1) for name, total in sums.items()}
        weights = work.encoded[0]["weights"]
        terms = {**work.contrast.terms, **local}
        shown = {**work.contrast.logs, **{name: total / passes for name, total in logs.items()}}
        return StepResult(
            step=self.completed_steps,
            loss=float(work.contrast.total.detach()) + sum(weights[n] * float(v) for n, v in local.items()),
            terms={name: float(value) for name, value in terms.items()},
            logs={name: float(value) for name, value in shown.items()},
            grad_norm=grad_norm,
            lr=lr,
        )

    # -- around the step --------------------------------------------------------------------------------

    def restore(self, step: int) -> None:
        """Continue after `step` steps; the caller has filled the tensors of the shards."""
        self.shards.set_adam_step(step)
        self.shards.push()
        self.ema.refresh()
        self.completed_steps = self._first_step = step

    def adopt_weights(self) -> None:
        """Start from masters that the caller has filled; the target copy starts as a copy of them."""
        self.shards.push()
        self.ema.restart()

    def pictures(self, batch: Batch) -> dict[str, np.ndarray]:
        """The stage's pictures of the first micro-batch. Call it on all ranks: stage 3 gathers weights."""
        first = global_batch.split(batch, self.config.micro_batch_size)[0]
        self.stage.eval()
        try:
            with torch.no_grad():
                return self.stage.pictures(global_batch.to_device(first, self.process.device))
        finally:
            self.stage.train()

    def close(self) -> None:
        """Free DeepSpeed's hooks and buffers; the engine cannot be used afterwards."""
        self._hook.remove()
        if self.sums:
            self.sums.close()
        self._deepspeed.destroy()
        # Stage 3 replaces it for the whole process, and a later stage would round differently.
        torch.nn.functional.linear = self._linear

    def _set_lr(self) -> float:
        lr = lr_at(self.optim, self.completed_steps, self.total_steps)
        for group, settings in zip(self._deepspeed.optimizer.param_groups, self.groups, strict=True):
            group["lr"] = lr * settings["lr_scale"]
        return lr

    def _exact_sums(self) -> ExactSums | None:
        """None where there is nothing to add, or with bf16, whose gradients have few bits anyway."""
        micro_batches = self.micro_batches * self.world.world_size
        wanted = self.zero.adds_exactly and micro_batches > 1
        return ExactSums(self.stage.named_parameters(), micro_batches, self.process) if wanted else None

    def _initialize(self) -> tuple[Any, Any, ExactNorm]:
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
        config = deepspeed_config(self.zero, optim, self.config.micro_batch_size, self.micro_batches)
        with without_prints():  # stage 1 in bf16 prints its memory a dozen times
            engine, *_ = deepspeed.initialize(model=self.stage, optimizer=optimizer, config=config)
        norm = ExactNorm(self.world)
        if self.zero.stage:
            replace_grad_norm(engine.optimizer, norm)
        return engine, hook, norm


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
