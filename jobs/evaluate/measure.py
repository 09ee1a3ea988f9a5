"""What is measured on held-out scenes, for any encoder: the tables of `poma evaluate` and of the report.

Every table has the same rows: chance, the encoder before training (the teacher's image tower on point
maps), the trained one, and the teacher on the colour images, which is the ceiling: the student learns
from nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from jobs.evaluate.config import EvaluateJob
from jobs.evaluate.tables import Row, Table
from poma3d.evaluate import probe, retrieval
from poma3d.evaluate.bootstrap import Estimate
from poma3d.export import SceneEncoder
from poma3d.pretrained.config import FGCLIP
from poma3d.pretrained.teacher import Teacher
from poma3d.sample import Sample
from poma3d.synthetic.captions import class_counts
from poma3d.synthetic.furniture import CLASSES
from poma3d.synthetic.rooms import SOURCE as ROOMS

GEOMETRY = ("depth", "intrinsics", "pose")
SCENE_QUERY = "scene R@1"
MODEL, UNTRAINED, TEACHER = "this encoder", "untrained encoder", "teacher on colour images"
NOTES = {
    MODEL: "point maps only",
    UNTRAINED: "the teacher's image tower on point maps",
    TEACHER: "the ceiling: it sees colour",
}


@dataclass(frozen=True)
class Features:
    """Unit view features float32 [S, V, E] of every encoder, by its name in the tables."""

    views: dict[str, np.ndarray]
    view_valid: np.ndarray


@dataclass(frozen=True)
class Results:
    """The tables, and the numbers by encoder and measure: {encoder: {"R@1-5": Estimate}}."""

    tables: list[Table]
    numbers: dict[str, dict[str, Estimate]]
    chance: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """For evaluation.json."""
        encoders = {
            name: {measure: e.to_dict() for measure, e in values.items()}
            for name, values in self.numbers.items()
        }
        return {"chance": self.chance, **encoders}


@torch.no_grad()
def encode(encoder: SceneEncoder, samples: Sequence[Sample], batch_size: int) -> np.ndarray:
    """Unit view features float32 [S, V, E]."""
    device = next(encoder.parameters()).device
    parts = []
    for start in range(0, len(samples), batch_size):
        chunk = samples[start : start + batch_size]
        if chunk[0].xyz is not None:
            points = torch.from_numpy(np.stack([np.asarray(s.xyz, np.float32) for s in chunk])).to(device)
            parts.append(encoder(points).features.float().cpu().numpy())
            continue
        arrays = (np.stack([getattr(s, name) for s in chunk]) for name in GEOMETRY)
        depth, intrinsics, pose = (torch.from_numpy(array).to(device) for array in arrays)
        scale = torch.tensor([s.depth_scale for s in chunk], device=device)
        parts.append(encoder.from_depth(depth, scale, intrinsics, pose).features.float().cpu().numpy())
    return np.concatenate(parts)


def gather_features(
    encoders: dict[str, SceneEncoder], samples: Sequence[Sample], batch_size: int
) -> Features:
    """View features of all encoders, and of the teacher from the data set's embeddings."""
    views = {name: encode(encoder, samples, batch_size) for name, encoder in encoders.items()}
    views[TEACHER] = np.stack([np.asarray(s.image_embedding, np.float32) for s in samples])
    return Features(views, np.stack([s.view_valid for s in samples]))


def measure(job: EvaluateJob, samples: Sequence[Sample], features: Features, teacher: Teacher) -> Results:
    """Retrieval by view captions (R@M-N) and by scene captions; the probe where classes are known."""
    numbers: dict[str, dict[str, Estimate]] = {name: {} for name in features.views}
    chance: dict[str, float] = {}
    for label, queries in query_sets(job, samples).items():
        texts = encode_queries(teacher, queries.texts)
        for name, views in features.views.items():
            gallery = retrieval.scene_features(views, features.view_valid)
            for best, found in retrieval.recalls(texts, gallery, queries.target, job.retrieval).items():
                numbers[name][f"{label}-{best}"] = found
                chance[f"{label}-{best}"] = retrieval.chance(len(samples), best)
    tables = [_retrieval_table(label, numbers, chance, len(samples)) for label in query_sets(job, samples)]
    if all(sample.source == ROOMS for sample in samples):
        tables.append(_probe(job, samples, features, numbers, chance))
    return Results(tables, numbers, chance)


def query_sets(job: EvaluateJob, samples: Sequence[Sample]) -> dict[str, retrieval.Queries]:
    """Label -> queries: "R@M" from M joined view captions, "scene" from the first scene caption."""
    cfg = job.retrieval
    said = [zip(s.view_captions, s.view_valid, strict=True) for s in samples]
    per_view = [[captions[0] for captions, valid in views if valid and captions] for views in said]
    sets = {
        f"R@{m}": retrieval.draw_queries(per_view, m, cfg.queries_per_scene, cfg.seed) for m in cfg.utterances
    }
    sets[SCENE_QUERY] = retrieval.draw_queries([s.scene_captions[:1] for s in samples], 1, 1, cfg.seed)
    return {label: queries for label, queries in sets.items() if queries.texts}


def encode_queries(teacher: Teacher, texts: Sequence[str]) -> np.ndarray:
    """Joined utterances are long: FG-CLIP has a mode for that, the others cut."""
    return teacher.encode_texts(texts, long=teacher.kind == FGCLIP).astype(np.float32)


def _retrieval_table(
    label: str, numbers: dict[str, dict[str, Estimate]], chance: dict[str, float], scenes: int
) -> Table:
    columns = [column for column in chance if column.startswith(f"{label}-")]
    rows = [Row("chance", f"1 of {scenes} scenes", [chance[c] for c in columns])]
    rows += [
        Row(name, NOTES.get(name, ""), [numbers[name][c] for c in columns], strong=name == MODEL)
        for name in sorted(numbers, key=_order)
    ]
    note = "The share of queries whose scene is among the N best; intervals of 95 % over scenes."
    return Table(f"Zero-shot scene retrieval by {_said(label)}", columns, rows, note)


def _said(label: str) -> str:
    """What a query is made of, in words."""
    count = int(label.removeprefix("R@")) if label.startswith("R@") else 0
    return {0: "the scene's caption", 1: "one view's caption"}.get(count, f"{count} views' captions, joined")


def _probe(
    job: EvaluateJob,
    samples: Sequence[Sample],
    features: Features,
    numbers: dict[str, dict[str, Estimate]],
    chance: dict[str, float],
) -> Table:
    classes = sorted(kind.name for kind in CLASSES.values())
    valid = features.view_valid.astype(bool)
    scene = np.repeat(np.arange(len(samples)), valid.shape[1])[valid.ravel()]
    counts = [class_counts(captions) for s in samples for captions in s.view_captions]
    labels = np.array([[c in seen for c in classes] for seen in counts])[valid.ravel()]
    held_out = probe.split_scenes(len(samples), job.probe)
    for name, views in features.views.items():
        found = probe.probe(views[valid], labels, scene, held_out, job.probe)
        numbers[name]["probe AP"] = found.macro
        chance["probe AP"] = found.base_rate
    rows = [Row("chance", "share of positives", [chance["probe AP"]])]
    rows += [
        Row(name, NOTES.get(name, ""), [numbers[name]["probe AP"]], strong=name == MODEL)
        for name in sorted(numbers, key=_order)
    ]
    note = (
        f"A linear classifier on frozen view features, trained on {int((~held_out).sum())} of the held-out "
        f"scenes and scored on the other {int(held_out.sum())}: mean average precision over classes."
    )
    return Table("Linear probe: which classes are in view", ["average precision"], rows, note)


def _order(name: str) -> int:
    known = [UNTRAINED, MODEL, TEACHER]
    return known.index(name) if name in known else len(known)
