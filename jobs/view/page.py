"""The page of a scene: one file that needs no network, in 3D by three.js, for light and dark screens."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from jobs.display.html import render
from jobs.view.config import PageConfig
from jobs.view.scene import ShownScene, height_ramp
from jobs.view.three import three_js
from plinth.errors import ConfigError
from poma3d.view.cloud import quantise


@dataclass(frozen=True)
class Ranking:
    """A text, and how much each view of the page is of it."""

    text: str
    values: list[float]
    """[V], in the page's order of views; the largest is the best."""
    right: int | None = None
    """The view that the text was said of, where that is known."""


@dataclass(frozen=True)
class RankedBy:
    """What the values of rankings are, in words."""

    name: str
    """Stands before a value."""
    legend: str
    """A sentence above the texts, without its full stop."""


COSINES = RankedBy("cosine", "Views ranked by their cosine with the text; the best is red")


def page_of(
    scene: ShownScene,
    config: PageConfig,
    rankings: Sequence[Ranking] = (),
    note: str = "",
    ranked_by: RankedBy = COSINES,
) -> str:
    """The page as text.

    Args:
        rankings: texts whose views are ranked; the first is shown at first.
        note: a sentence below the title.
        ranked_by: what their values are.
    """
    facts = {
        "Views": str(len(scene.views))
        if len(scene.views) == scene.of_views
        else f"{len(scene.views)} of {scene.of_views}",
        "Points": f"{len(scene.cloud.points):,}",
        "Source": scene.source,
    }
    if scene.cloud.spacing_m:
        facts["A point every"] = f"{scene.cloud.spacing_m * 1000:.0f} mm"
    return render(
        "view/page.html",
        title=scene.scene_id,
        scene=scene,
        facts=facts,
        note=note,
        rankings=list(rankings),
        ranked_by=ranked_by,
        data=_data(scene, config, rankings, ranked_by),
        three=Markup(three_js()),
    )


def write_page(page: str, path: Path) -> Path:
    """Write it, whole or not at all.

    Raises:
        ConfigError: the folder cannot be written.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(page, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written ({error.strerror}).", "Name another file with --output."
        ) from None
    return path


def _data(
    scene: ShownScene, config: PageConfig, rankings: Sequence[Ranking], ranked_by: RankedBy
) -> dict[str, Any]:
    """What the script reads: plain JSON, arrays as base64."""
    cloud = scene.cloud
    small = quantise(cloud.points)
    low, high = scene.box
    return {
        "points": len(cloud.points),
        "origin": small.origin.tolist(),
        "step": small.step,
        "xyz": _base64(small.values.astype("<u2")),
        "rgb": _base64(cloud.rgb),
        "normals": _base64(np.rint(cloud.normals * 127).astype(np.int8)),
        "seen": _base64(np.packbits(cloud.seen_by, axis=1, bitorder="little")),
        "spacing": cloud.spacing_m,
        "coloured": scene.coloured,
        "ramp": height_ramp(),
        "low": low,
        "high": high,
        "cut": min(low[2] + config.ceiling_m, high[2]),
        "pyramids": [view.pyramid for view in scene.views],
        "captions": [view.captions for view in scene.views],
        "names": [view.name for view in scene.views],
        "rankings": [asdict(ranking) for ranking in rankings],
        "rankedBy": ranked_by.name,
    }


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
