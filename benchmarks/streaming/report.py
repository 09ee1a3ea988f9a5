"""The tables, for the terminal and as Markdown."""

from __future__ import annotations

import datetime
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from benchmarks.streaming.cut import Cut
from benchmarks.streaming.measure import Row

Numbers = dict[str, float]
HEADER = (
    "",
    "views/s",
    "ratio",
    "slowest to fastest",
    "CPU-s per 1,000",
    "first batch, s",
    "KiB/view",
    "cached",
)
CUT_HEADER = ("", "consumers", "once", "more than once", "never", "state in mid-epoch")
KIB = 1024


def numbers(
    rows: Mapping[str, Row], base: str, sizes: Mapping[str, float], cached: Mapping[str, float]
) -> dict[str, Numbers]:
    """Medians, and ratios to `base`; `sizes` and `cached` are bytes of a view."""
    return {
        name: {
            "views_per_s": row.views_per_s,
            "ratio": row.views_per_s / rows[base].views_per_s,
            "cpu_s_per_1000": statistics.median(row.cpu_s) / row.views * 1000,
            "first_s": statistics.median(row.first_s),
            "slowest": row.spread[0],
            "fastest": row.spread[1],
            "bytes_per_view": sizes[name],
            "cached_bytes_per_view": cached[name],
        }
        for name, row in rows.items()
    }


def table(found: Mapping[str, Numbers]) -> str:
    """One line a path, as Markdown."""
    lines = []
    for name, row in found.items():
        stored, cached = row["bytes_per_view"] / KIB, row["cached_bytes_per_view"] / KIB
        lines.append(
            (
                name, f"{row['views_per_s']:,.0f}", f"{row['ratio']:.2f}",
                f"{row['slowest']:,.0f} to {row['fastest']:,.0f}", f"{row['cpu_s_per_1000']:.3f}",
                f"{row['first_s']:.2f}", f"{stored:.1f}", f"{cached:.1f}",
            )
        )  # fmt: skip
    return markdown(HEADER, lines)


def cut_table(found: Mapping[str, list[Cut]]) -> str:
    """One line a path and change of size, as Markdown."""
    return markdown(
        CUT_HEADER,
        [
            (name, f"{cut.before} to {cut.after}", *_counts(cut), "yes" if cut.has_state else "no")
            for name, of_path in found.items()
            for cut in of_path
        ],
    )


def machine() -> str:
    """Date and hardware, in a line."""
    model = next(
        (line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")),
        platform.machine(),
    )
    memory = psutil.virtual_memory().total / 2**30
    load = os.getloadavg()[0]
    return (
        f"{datetime.date.today().isoformat()}, {os.cpu_count()} cores ({model}), {memory:.0f} GiB, "
        f"Python {platform.python_version()}; load of the machine at the end: {load:.1f}"
    )


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def _counts(cut: Cut) -> tuple[str, str, str]:
    if cut.failed:
        return cut.failed, "", ""
    return f"{cut.once:,}", f"{cut.twice:,}", f"{cut.never:,}"


def markdown(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A table."""
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
