"""The page that `poma plan` prints: every number with what it rests on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jobs.display.text import aligned
from jobs.plan.memory import USABLE_SHARE
from jobs.pretrain.config import PretrainJob
from plinth.observe.metrics import duration
from plinth.units import GIB, SECONDS_PER_HOUR, counted

if TYPE_CHECKING:
    from jobs.plan.estimate import BatchPlan, JobPlan, StagePlan
    from jobs.plan.tuning import TuningPlan

MILLION, GIGA, TERA = 10**6, 10**9, 10**12
INDENT = "  "
UNKNOWN = "-"
COLUMNS = (
    "weights", "gradients", "optimizer", "average", "buckets", "activations", "chamfer", "contrast", "step",
)  # fmt: skip
"""Parts of `Memory`; not all of them exist at once, so the peak is less than their sum."""
TUNING_COLUMNS = ("frozen", "trained", "gradients", "optimizer", "buckets", "activations", "step")
"""Those of finetuning, which has neither average nor contrastive losses."""


def text(plan: JobPlan[StagePlan]) -> str:
    """All of it."""
    lines = [_title(plan), *_beside(plan)]
    for stage in plan.stages:
        lines += ["", f"{stage.name} stage", *_about(stage), *_memory(plan, stage, COLUMNS)]
        lines += [*_speed(plan, stage, _contrast(stage)), *_storage(stage)]
    return "\n".join([*lines, *_cost(plan)])


def text_of_tuning(plan: JobPlan[TuningPlan]) -> str:
    """The same of a head or a language model."""
    lines = [_title(plan), ""]
    for stage in plan.stages:
        lines += [*_about_tuning(stage), *_memory(plan, stage, TUNING_COLUMNS), *_lengths(stage)]
        lines += _speed(plan, stage)
    return "\n".join([*lines, *_cost(plan)])


def _title(plan: JobPlan[Any]) -> str:
    job = plan.job
    where = f" on {plan.cluster.path}" if plan.cluster else ""
    return (
        f"{job.name}: {counted(plan.workers, 'worker')}{where}, zero.stage {job.zero.stage}, "
        f"{job.zero.precision.value}; nothing was started"
    )


def _beside(plan: JobPlan[Any]) -> list[str]:
    asked = plan.job.evaluate_beside if isinstance(plan.job, PretrainJob) else None
    if asked is None:
        return []
    claim = f"{asked.num_cpus:g} CPU" + (f" and {asked.num_gpus:g} GPU" if asked.num_gpus else "")
    kinds, steps = " and ".join(kind.value for kind in asked.kinds), plan.job.checkpoint.every_steps
    return [
        f"evaluate_beside: {kinds} of every {asked.every * steps:,} steps claim {claim} beside the workers; "
        "their time is in none of the figures below"
    ]


def _about(stage: StagePlan) -> list[str]:
    shape, size = stage.data.shape, stage.size
    known = f"{stage.data.samples:,.0f}" if stage.data.samples else "an unknown number of"
    parts = ", ".join(f"{name} {cost / TERA:.3g}" for name, cost in stage.flops.parts.items())
    work = stage.flops.per_sample(stage.two_pass)
    again = f"; and {stage.flops.first_pass / TERA:.3g} for the first of two passes" if stage.two_pass else ""
    return [
        f"{INDENT}data         {known} samples of {counted(shape.views, 'view')} of {shape.height} x "
        f"{shape.width}, {stage.data.bytes_per_sample / 1024:,.0f} KiB each; {stage.data.origin}",
        f"{INDENT}parameters   {size.parameters / MILLION:.1f} M, of which {size.trainable / MILLION:.1f} M "
        f"are trained and {size.averaged / MILLION:.1f} M averaged into the target encoder",
        f"{INDENT}operations   {work / TERA:.3g} TFLOP per sample: {parts}{again}",
    ]


def _about_tuning(stage: TuningPlan) -> list[str]:
    known = f"{stage.samples:,.0f}" if stage.samples else "an unknown number of"
    parts = ", ".join(
        f"{name} {size.parameters / MILLION:.1f} M ({size.trainable / MILLION:.1f} M)"
        for name, size in stage.parts.items()
    )
    passes = ", ".join(f"{name} {work / TERA:.3g}" for name, work in stage.passes.items() if work)
    return [
        f"{INDENT}data         {known} {stage.unit}s {stage.each}; {stage.origin}",
        f"{INDENT}parameters   {stage.size.parameters / MILLION:.1f} M, of which "
        f"{stage.size.trainable / MILLION:.1f} M are trained: {parts}",
        f"{INDENT}operations   at most {stage.work / TERA:.3g} TFLOP per {stage.unit}: {passes}",
    ]


def _lengths(stage: TuningPlan) -> list[str]:
    """Activations by the length of a row, with and without checkpointing."""
    if not stage.lengths:
        return []
    many = stage.micro_batch_size
    head = ["tokens", "1 kept", f"{many} kept", "1 again", f"{many} again"]
    rows = []
    for one in stage.lengths:
        sizes = [one.kept.of(1), one.kept.of(many), one.again.of(1), one.again.of(many)]
        mark = "*" if one.is_jobs else ""
        rows.append([f"{one.tokens:,}{mark}", *(f"{size / GIB:.2f}" for size in sizes)])
    return [
        f"{INDENT}activations in GiB of micro-batches of 1 and {many}, by tokens of a conversation, where "
        f"blocks are kept and where they are computed again ({stage.again_key}); * the job's longest",
        *_table(head, rows),
    ]


def _memory(plan: JobPlan[Any], stage: BatchPlan, columns: Sequence[str]) -> list[str]:
    gpu = stage.pace.gpu if stage.pace else None
    head = ["ZeRO", *columns, "peak"]
    if gpu is not None:
        head += ["fits", "largest micro-batch"]
    rows = []
    for zero in stage.zero:
        m = zero.memory
        parts = [getattr(m, column) for column in (*columns, "peak")]
        row = [f"{zero.stage}{'*' if zero.stage == plan.job.zero.stage else ''}"]
        row += [f"{part / GIB:.2f}" for part in parts]
        if gpu is not None:
            fits = m.peak <= USABLE_SHARE * gpu.memory_bytes
            row += ["yes" if fits else "NO", f"{zero.largest} ({zero.divides} divides the batch)"]
        rows.append(row)
    of = f", of {gpu.memory_bytes / GIB:.0f} of which {USABLE_SHARE:.0%} can be used" if gpu else ""
    lines = [
        f"{INDENT}memory of a GPU in GiB, micro-batches of {stage.micro_batch_size}{of} (* the job's)",
        *_table(head, rows),
    ]
    if stage.fewest < plan.workers:
        fewest, peak = counted(stage.fewest, "worker"), stage.peak_at_fewest / GIB
        lines.append(f"{INDENT * 2}* shrunk to {fewest}, each with a larger share: peak {peak:.2f}")
    return lines


def _contrast(stage: StagePlan) -> str:
    work = stage.flops.contrast(stage.global_batch_size) / GIGA
    return f"; {work:.3g} GFLOP of it for the contrastive losses on every GPU"


def _speed(plan: JobPlan[Any], stage: BatchPlan, besides: str = "") -> list[str]:
    pace = stage.pace
    if pace is None:
        return [f"{INDENT}time         unknown: name a cluster with GPUs (--cluster clusters/aws-h100.yaml)"]
    peak = pace.gpu.bf16_flops if plan.job.zero.precision.value == "bf16" else pace.gpu.fp32_flops
    lines = [
        f"{INDENT}step         {_seconds(pace.step_s)} for {stage.global_batch_size} samples, "
        f"{pace.samples_per_s:,.0f} samples/s, if {pace.workers} {pace.gpu.name} reach {pace.mfu:.0%} of "
        f"{peak / TERA:.0f} TFLOP/s (assumed; --mfu) and nothing waits{besides}",
    ]
    if pace.epoch_hours is not None:
        lines.append(f"{INDENT}epoch        {duration(pace.epoch_hours * SECONDS_PER_HOUR)}")
    if pace.hours is not None:
        lines.append(f"{INDENT}stage        {pace.steps:,} steps, {duration(pace.hours * SECONDS_PER_HOUR)}")
    else:
        lines.append(f"{INDENT}stage        unknown: give --assume {stage.name}.samples=N")
    return lines


def _storage(stage: StagePlan) -> list[str]:
    if not stage.storage:
        return []
    rows = [
        [
            str(s.gpus),
            f"{s.samples_per_s:,.0f}",
            f"{s.bytes_per_s / MILLION:,.0f}",
            f"{s.requests_per_s:,.0f}",
        ]
        for s in stage.storage
    ]
    return [
        f"{INDENT}storage must deliver, if every GPU keeps that pace (a request reads "
        f"{stage.data.samples_per_request:.0f} samples)",
        *_table(["GPUs", "samples/s", "MB/s", "requests/s"], rows),
    ]


def _cost(plan: JobPlan[Any]) -> list[str]:
    cost, cluster = plan.cost, plan.cluster
    if cost is None or cluster is None:
        return []
    lines = ["", f"cost, at the list prices of {cluster.as_of} (check them)"]
    for node, count in cost.nodes:
        price = UNKNOWN if node.hourly is None else f"{node.hourly:.2f} {cluster.currency} per hour each"
        lines.append(
            f"{INDENT}{count} x {node.name} ({node.machine}, {node.market.replace('_', ' ')}): {price}"
        )
        if count > node.most and node is not cluster.head:
            lines.append(
                f"{INDENT}  the cluster file allows {node.most}: raise max_workers, or take fewer workers"
            )
    if cost.missing:
        lines.append(f"{INDENT}no price for {', '.join(cost.missing)}: fill it in")
    if cost.hours is not None:
        lines.append(f"{INDENT}all stages     {duration(cost.hours * SECONDS_PER_HOUR)}")
    if cost.total is not None:
        lines.append(
            f"{INDENT}all stages     {cost.total:,.0f} {cluster.currency}, without disks, traffic, requests, "
            "start-up and what is lost to failures"
        )
    if not plan.job.fit.gpus_per_worker:
        lines.append(f"{INDENT}fit.gpus_per_worker is 0: as it stands the workers would leave the GPUs alone")
    return lines


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [INDENT * 2 + line for line in aligned([head, *rows], right=range(len(head)))]


def _seconds(value: float) -> str:
    return f"{1000 * value:.0f} ms" if value < 1 else f"{value:.1f} s"
