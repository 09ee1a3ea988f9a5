"""Checkpoints of an engine, readable at any world size and ZeRO stage.

Each rank writes the slices of flat tensors (`tensor_files`) that it owns:

    master/NAME, exp_avg/NAME, exp_avg_sq/NAME   fp32, trainable
    ema/TARGET                                   fp32, target copies
    frozen/NAME, buffer/NAME                     in their own type; not what a build of the stage brings along

The commit record holds the state: step, shapes, groups, optimizer settings, versions, the metrics of the
step, the caller's notes. `saver` says how they reach storage, `store` what is in storage.
"""

from __future__ import annotations

import importlib.metadata
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from plinth.checkpoint import store, tensor_files
from plinth.checkpoint.saver import Saved, Saver
from plinth.checkpoint.upload import recover
from plinth.engine.engine import Engine
from plinth.engine.process import on_all_ranks
from plinth.engine.zero_shards import MOMENTS, TensorShard
from plinth.errors import CheckpointError
from plinth.storage import Storage
from plinth.world import World

PACKAGES = ("torch", "deepspeed", "ray", "numpy")

log = logging.getLogger(__name__)


@dataclass
class WeightsReport:
    """What `load_weights` took, by parameter name."""

    step: int
    loaded: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    """In this stage but not in the checkpoint: they keep their initial values."""
    reshaped: list[str] = field(default_factory=list)
    """In both with different shapes: they keep their initial values."""
    unused: list[str] = field(default_factory=list)
    """In the checkpoint only."""


# -- saving ---------------------------------------------------------------------------------------------


def save(
    engine: Engine, saver: Saver, notes: dict[str, Any], metrics: dict[str, float] | None = None
) -> Saved:
    """Begin a checkpoint of the engine (see `Saver.save`). Call it on all ranks.

    Args:
        notes: JSON values to keep with it, such as cursor and resolved config; `load` returns them.
        metrics: numbers of the step, by which the best checkpoints are found.
    """
    state = _state(engine, notes) | {"metrics": metrics or {}}
    return saver.save(engine.completed_steps, tensor_shards(engine, writing=True), state)


def tensor_shards(engine: Engine, writing: bool) -> Iterator[TensorShard]:
    """What this rank writes to a checkpoint, or (not `writing`) needs from it; live views."""
    shards = engine.shards

    def held_by_all(shard: TensorShard) -> TensorShard:
        return shards.share(shard) if writing else shard

    for f in shards.params:
        for kind, tensor in (("master", f.master), *((m, getattr(f, m)) for m in MOMENTS)):
            shard = TensorShard(f"{kind}/{f.name}", f.numel, f.start, tensor)
            yield held_by_all(shard) if shards.replicated else shard
    for average in engine.ema.target_shards():
        shard = TensorShard(f"ema/{average.key}", average.numel, average.start, average.tensor)
        yield held_by_all(shard) if shards.replicated else shard
    for name in _frozen_names(engine):
        frozen = shards.frozen(name)
        shard = TensorShard(f"frozen/{name}", frozen.numel, frozen.start, frozen.tensor)
        yield shard if shards.zero_stage == 3 else held_by_all(shard)
    for buffer in shards.buffers():
        yield held_by_all(TensorShard(f"buffer/{buffer.key}", buffer.numel, 0, buffer.tensor))


def _frozen_names(engine: Engine) -> list[str]:
    """Frozen parameters without the target copies, which are restored from the EMA, and without those that a
    build of the stage brings along."""
    unsaved: Callable[[], Sequence[str]] = getattr(engine.stage, "unsaved", tuple)
    left_out = {*engine.ema.pairs.values(), *unsaved()}
    return [name for name in engine.shards.frozen_names() if name not in left_out]


def _keys(engine: Engine) -> dict[str, list[int]]:
    """Every tensor of a checkpoint of this engine, all ranks together, with its shape."""
    shards = engine.shards
    keys = {f"{kind}/{n}": shards.shape(n) for n in shards.trainable_names() for kind in ("master", *MOMENTS)}
    keys |= {f"ema/{n}": shards.shape(n) for n in engine.ema.pairs.values()}
    keys |= {f"frozen/{n}": shards.shape(n) for n in _frozen_names(engine)}
    return keys | {f"buffer/{b.key}": list(engine.stage.get_buffer(b.key).shape) for b in shards.buffers()}


def _state(engine: Engine, notes: dict[str, Any]) -> dict[str, Any]:
    names = {id(p): n for n, p in engine.stage.named_parameters()}
    groups = [
        {
            **{k: g[k] for k in ("name", "weight_decay", "lr_scale")},
            "params": [names[id(p)] for p in g["params"]],
        }
        for g in engine.groups
    ]
    return {
        "format_version": store.FORMAT_VERSION,
        "step": engine.completed_steps,
        "total_steps": engine.total_steps,
        "shapes": _keys(engine),
        "ema_pairs": engine.ema.pairs,
        "groups": groups,
        "optim": asdict(engine.optim),
        "seed": engine.config.seed,
        "exact_sums": engine.sums.state() if engine.sums else {},
        "written_by": {
            "world_size": engine.world.world_size,
            "zero_stage": engine.zero.stage,
            "precision": engine.zero.precision.value,
        },
        "versions": {package: _version(package) for package in PACKAGES},
        "notes": notes,
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


# -- loading --------------------------------------------------------------------------------------------


def load(engine: Engine, storage: Storage, scratch: Path) -> dict[str, Any] | None:
    """Restore the newest whole checkpoint, and take damaged ones that are newer out of use: the steps behind
    it are trained again. Before that, upload what earlier processes left on the disks of these machines.
    Call it on all ranks of the process group that writes the run.

    Returns:
        Its state (with `notes`), or None where no checkpoint is committed.

    Raises:
        CheckpointError: none of the committed ones is whole, or it belongs to another model.
    """
    recover(engine.world, storage, scratch)
    with store.Fetched(engine.world, storage, scratch) as fetched:
        if fetched.folder is None:
            return None
        state = fetched.state()
        _check_same_model(engine, state)
        tensor_files.read(tensor_shards(engine, writing=False), fetched.folder)

        def retire() -> None:
            for step in fetched.damaged if engine.world.rank == 0 else ():
                store.take_out_of_use(storage, step)
                log.warning(
                    "%s: the damaged checkpoint of step %d is out of use (%s keeps its record); the steps "
                    "after %d are trained again.", storage.uri, step, store.DAMAGED_KEY, state["step"],
                )  # fmt: skip

        on_all_ranks(engine.world, retire)
    engine.restore(state["step"])
    if engine.sums:
        engine.sums.restore(state["exact_sums"])  # empty from a bf16 run: the next step finds them
    return state


def load_weights(engine: Engine, storage: Storage, scratch: Path) -> WeightsReport:
    """Start from the weights of another stage: parameters of the same name and shape take its masters
    (or frozen weights); moments, step and schedule stay new, and the target copy starts as a copy.
    Call it on all ranks.

    Raises:
        CheckpointError: there is no checkpoint, the last one is damaged, or no parameter of it fits.
    """
    with store.Fetched(engine.world, storage, scratch, only_newest=True) as fetched:
        if fetched.folder is None:
            raise CheckpointError(
                f"{storage.uri} has no committed checkpoint to start from.", "Run the earlier stage first."
            )
        state = fetched.state()
        report = WeightsReport(state["step"])
        saved = {
            key.split("/", 1)[1]: key for key in state["shapes"] if key.startswith(("frozen/", "master/"))
        }
        names = [*engine.shards.trainable_names(), *_frozen_names(engine)]
        for name in names:
            if name not in saved:
                report.missing.append(name)
            elif state["shapes"][saved[name]] != engine.shards.shape(name):
                report.reshaped.append(name)
            else:
                report.loaded.append(name)
        report.unused = sorted(saved.keys() - set(names))
        if not report.loaded:
            raise CheckpointError(
                f"{storage.uri}: no parameter of the checkpoint fits this stage.",
                "It belongs to another model.",
            )
        fitting = set(report.loaded)
        own = [TensorShard(f.name, f.numel, f.start, f.master) for f in engine.shards.params]
        own += [engine.shards.frozen(name) for name in _frozen_names(engine)]
        wanted = [TensorShard(saved[p.key], p.numel, p.start, p.tensor) for p in own if p.key in fitting]
        tensor_files.read(wanted, fetched.folder)
    engine.adopt_weights()
    return report


def read_full(storage: Storage, scratch: Path, step: int | None = None) -> dict[str, Tensor]:
    """All weights of a checkpoint by name, in their shapes on the CPU: fp32 masters of trained
    parameters, fp32 averages of target copies, frozen parameters as fp32, buffers as they are.
    Needs no process group.

    Args:
        step: which one; the newest whole one when None.

    Raises:
        CheckpointError: there is none.
    """
    with store.Fetched(World(0, 1), storage, scratch, step) as fetched:
        folder = fetched.required()
        shapes = fetched.state()["shapes"]
        wanted = [key for key in shapes if not key.startswith(tuple(f"{m}/" for m in MOMENTS))]
        whole = tensor_files.read_whole(folder, wanted)
    return {
        key.split("/", 1)[1]: (flat if key.startswith("buffer/") else flat.float()).view(shapes[key])
        for key, flat in whole.items()
    }


def _check_same_model(engine: Engine, state: dict[str, Any]) -> None:
    expected, saved = _keys(engine), state["shapes"]
    for key in sorted(expected.keys() | saved.keys()):
        if expected.get(key) != saved.get(key):
            raise CheckpointError(
                f"The checkpoint of step {state['step']} is of another model: {key} has shape "
                f"{saved.get(key, 'none')} in it and {expected.get(key, 'none')} in this job.",
                "Go back to the job that wrote it, or use another run name for a new run.",
            )
