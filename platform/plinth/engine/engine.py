"""One optimizer step of any Stage over the global batch, through DeepSpeed ZeRO.

The result does not depend on how the batch is split: world size, micro-batches and ZeRO stage change only
speed and memory. A step is

    first pass    features of every micro-batch (`global_batch` explains the two passes)
    contrast      the loss over the gathered features, and its gradient for this rank's features
    backward      every micro-batch, through its features and its local losses; twice if `exact_sums` asks
    tell          all numbers of the step in one message (`message`): the only wait for the device
    apply         clip, step; nothing is applied if a number is not finite (`guards`)
    update        the target copy (`ema`)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from plinth.engine import global_batch, guards
from plinth.engine.adamw import AdamW, lr_at
from plinth.engine.config import OptimConfig, Precision, ZeroConfig
from plinth.engine.ema import EmaShards
from plinth.engine.exact_sums import ExactSums
from plinth.engine.gradients import Gradients, LongWay, ShortWay, is_short
from plinth.engine.message import Message
from plinth.engine.process import Process, prepare_deepspeed, seed_pass, without_prints
from plinth.engine.stage import Batch, Contrast
from plinth.engine.zero_config import deepspeed_config
from plinth.engine.zero_shards import ZeroShards
from plinth.world import check_divisibility

ENCODED_FIELDS = ("features", "sums", "counts", "weights", "logs")
COUNT = "count/"
REPLAYS_CHECKED = 3  # more than one: LoRA's dropout has no effect until its second factor has left zero


@dataclass
class StepResult:
    """What a step did; the same on every rank.

    `loss` is the total over the global batch, `terms` are its parts before their weights, `logs` are shown
    only. `step` counts from 0, `grad_norm` is before clipping. `told` [ranks, k] is what the callers on all
    ranks passed on.
    """

    step: int
    loss: float
    terms: dict[str, float]
    logs: dict[str, float]
    grad_norm: float
    lr: float
    told: np.ndarray = field(default_factory=lambda: np.zeros((1, 0)))


@dataclass
class _Work:
    """The state of a step; lists are by micro-batch of this rank."""

    micro_batches: list[Batch]
    encoded: list[dict[str, Any]]
    """Outputs of the first pass."""
    counts: dict[str, Tensor] = field(init=False)
    """How many samples each local loss has in the global batch."""
    contrast: Contrast = field(init=False)
    grads: list[global_batch.Features] = field(init=False)
    """d contrast / d features."""
    losses: list[Tensor] = field(default_factory=list)
    """Local losses, this rank's share of the global mean, weighted."""
    shown: list[dict[str, Any]] = field(default_factory=list)
    """`sums` and `logs` without their graphs."""
    replays: dict[str, Tensor] = field(default_factory=dict)
    """By micro-batch and feature: how far the second pass was from the first."""


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
        trained = sum(p.numel() for group in self.groups for p in group["params"])
        self.sums = self._exact_sums()
        self._deepspeed, self._hook = self._initialize()
        self._gradients: Gradients
        if is_short(self.zero, trained):
            self._gradients = ShortWay(stage, self._deepspeed, self.world, self.sums)
        else:
            self._gradients = LongWay(stage, self._deepspeed, self.zero, self.world, self.sums)
        self.shards = ZeroShards(self._deepspeed, stage, self.zero.stage, self.world)
        for shard in self.shards.params if exact else []:
            whole = exact[shard.name].view(-1)
            shard.master.copy_(whole[shard.start : shard.start + len(shard.master)])
        self.ema = EmaShards(self.shards, stage, stage.ema_pairs())
        self.ema.refresh()

    # -- the step ---------------------------------------------------------------------------------------

    def step(self, batch: Batch, details: bool = False, tell: Sequence[float] = ()) -> StepResult:
        """Train on this rank's rows of the global batch. Call it on all ranks.

        Args:
            details: have the stage compute its costlier logs too.
            tell: numbers for the callers on the other ranks, as many on each.

        Raises:
            NonFiniteError: on all ranks, before anything is applied. Gradients of the step may be left, so
                the engine cannot be used further.
        """
        self.stage.log_details = details
        lr = self._set_lr()
        work = self._first_pass(batch)
        self._contrast(work)
        self._backward(work)
        found = self._exchange(work, tell)
        if self.sums and not self.sums.settle(found["largest"].max(axis=0).tolist()):
            # The first steps repeat the pass for the check of replays, which a resize may make necessary.
            if self._checks_replays() or not self._gradients.round_again():
                self._gradients.discard()
                self._backward(work, again=True)
            found = self._exchange(work, tell)
            self.sums.settle(found["largest"].max(axis=0).tolist())
        if not self._gradients.is_finite(found["squares"]):
            self._fail("gradient norm", work)
        grad_norm = self._gradients.step()
        if grad_norm is None:
            self._fail("gradient norm", work)
        self.ema.update(self.stage.ema_momentum(self.completed_steps / max(1, self.total_steps - 1)))
        result = self._result(work, found, lr, grad_norm)
        self.completed_steps += 1
        return result

    def _checks_replays(self) -> bool:
        return self.completed_steps - self._first_step < REPLAYS_CHECKED

    def _first_pass(self, batch: Batch) -> _Work:
        """Features of all micro-batches, with their graph only if there is one micro-batch."""
        of_host = global_batch.split(batch, self.config.micro_batch_size)
        if len(of_host) != self.micro_batches:
            raise ValueError(f"the batch has {len(of_host)} micro-batches, expected {self.micro_batches}")
        prepared = [self.stage.prepare(m) for m in of_host]
        micro_batches = [global_batch.to_device(m, self.process.device) for m in prepared]
        two_pass = self.micro_batches > 1
        encoded = [self._encode(m, k, features_only=two_pass) for k, m in enumerate(micro_batches)]
        return _Work(micro_batches, encoded)

    def _encode(self, batch: Batch, index: int, features_only: bool) -> dict[str, Any]:
        """One pass of one micro-batch; without a graph if only its features are wanted."""
        global_index = self.world.rank * self.micro_batches + index
        seed = global_batch.pass_seed(self.config.seed, self.completed_steps, global_index)
        seed_pass(seed, self.process.device)
        with torch.no_grad() if features_only else nullcontext():
            return self._gradients.forward(batch, features_only)

    def _contrast(self, work: _Work) -> None:
        """The loss over the global batch, and its gradient for this rank's features. The counts of the local
        losses travel with the features."""
        counted = [{f"{COUNT}{n}": c.detach().view(1) for n, c in e["counts"].items()} for e in work.encoded]
        gathered = global_batch.gather(
            [{**e["features"], **c} for e, c in zip(work.encoded, counted, strict=True)], self.world
        )
        work.counts = {name: gathered.pop(f"{COUNT}{name}").sum() for name in work.encoded[0]["counts"]}
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
                if self._checks_replays():
                    found = guards.replay_differences(work.encoded[k]["features"], encoded["features"])
                    work.replays |= {f"{k}/{name}": difference for name, difference in found.items()}
            parts = [
                encoded["weights"][name] * total / work.counts[name].clamp(min=1).float()
                for name, total in encoded["sums"].items()
            ]
            loss = torch.stack(parts).sum() if parts else work.contrast.total.new_zeros(())
            work.losses.append(loss.detach())
            work.shown.append({f: {n: v.detach() for n, v in encoded[f].items()} for f in ("sums", "logs")})
            through_features = global_batch.surrogate(encoded["features"], work.grads[k])
            if through_features is not None:
                loss = loss + through_features
            self._gradients.backward(loss, is_last=k == self.micro_batches - 1)

    def _exchange(self, work: _Work, tell: Sequence[float]) -> Mapping[str, np.ndarray]:
        """The numbers of the step, from all ranks.

        Raises:
            NonFiniteError: the loss is not finite on some rank.
            RuntimeError: as `guards.check_replay`.
        """
        message = Message(self.process.device)
        message.add_scalars("losses", [work.contrast.total, *work.losses])
        shown = work.contrast
        message.add_scalars("global", [shown.total, *shown.terms.values(), *shown.logs.values()])
        message.add_scalars("counts", list(work.counts.values()))
        message.add("sums", _added(work.shown, "sums"))
        message.add("logs", _added(work.shown, "logs"))
        message.add_scalars("replays", list(work.replays.values()))
        if self.sums:
            message.add("largest", self.sums.largest)
        message.add("squares", self._gradients.squares())
        message.add("told", torch.tensor(tell, dtype=torch.float64))
        found = message.exchange(self.world)
        if not np.isfinite(found["losses"]).all():
            self._fail("loss", work)
        guards.check_replay(
            {n.split("/", 1)[1]: v for n, v in zip(work.replays, found["replays"].max(axis=0), strict=True)}
        )
        return found

    def _fail(self, what: str, work: _Work) -> NoReturn:
        """Raise on all ranks. A gradient does not tell which sample is to blame, so all are named."""
        ids: list[str] = []
        for k, micro_batch in enumerate(work.micro_batches):
            of_loss = what == "loss"
            features = work.encoded[k]["features"] if of_loss else {}
            loss = work.losses[k] if of_loss else torch.tensor(torch.nan)
            ids += guards.suspects(micro_batch, features, loss)
        guards.fail(what, self.completed_steps, ids, self.world)

    def _result(
        self, work: _Work, found: Mapping[str, np.ndarray], lr: float, grad_norm: float
    ) -> StepResult:
        passes = self.micro_batches * self.world.world_size
        encoded, shown, contrast = work.encoded[0], work.shown[0], work.contrast
        total, *of_contrast = found["global"][self.world.rank].tolist()
        counts = dict(zip(work.counts, found["counts"][0].tolist(), strict=True))
        sums = dict(zip(shown["sums"], found["sums"].sum(axis=0).tolist(), strict=True))
        logs = dict(zip(shown["logs"], found["logs"].sum(axis=0).tolist(), strict=True))
        local = {name: value / max(counts[name], 1) for name, value in sums.items()}
        names = [*contrast.terms, *contrast.logs]
        by_name = list(zip(names, of_contrast, strict=True))
        terms, of_logs = dict(by_name[: len(contrast.terms)]), dict(by_name[len(contrast.terms) :])
        return StepResult(
            step=self.completed_steps,
            loss=total + sum(encoded["weights"][name] * value for name, value in local.items()),
            terms=terms | local,
            logs=of_logs | {name: value / passes for name, value in logs.items()},
            grad_norm=grad_norm,
            lr=lr,
            told=found["told"],
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
        first = self.stage.prepare(global_batch.split(batch, self.config.micro_batch_size)[0])
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

    def _initialize(self) -> tuple[Any, Any]:
        prepare_deepspeed()
        import deepspeed

        optim = self.optim
        optimizer = AdamW(
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
        return engine, hook


def _added(shown: list[dict[str, Any]], field: str) -> Tensor:
    """Sums over micro-batches of the scalars in `field` [names], fp64."""
    columns = [torch.stack([s[field][name] for s in shown]).double().sum() for name in shown[0][field]]
    return torch.stack(columns) if columns else torch.zeros(0, dtype=torch.float64)


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
