"""What is measured on held-out scenes, for any encoder, as numbers; `jobs.evaluate.tables` shows them.

Besides chance there are the encoder before training (the teacher's image tower on point maps), the trained
one, and the teacher on the colour images, which is the ceiling: the student learns from nothing else.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from jobs.evaluate.config import EvaluateJob, MeasureKind
from jobs.evaluate.texts import encode_texts
from plinth.errors import DataError
from poma3d.evaluate import probe, retrieval
from poma3d.evaluate.bootstrap import Estimate
from poma3d.export import SceneEncoder
from poma3d.pretrained.config import FGCLIP
from poma3d.pretrained.teacher import Teacher
from poma3d.sample import Classes, Sample

GEOMETRY = ("depth", "intrinsics", "pose")
SCENE_QUERY = "scene R@1"
PROBE = "probe AP"
NO_PROBE = "No probe: the data set names no classes (classes in its manifest)."
MODEL, UNTRAINED, TEACHER = "this encoder", "untrained encoder", "teacher on colour images"


@dataclass(frozen=True)
class Features:
    """Unit view features float32 [S, V, E] of every encoder, by its name in the tables."""

    views: dict[str, np.ndarray]
    view_valid: np.ndarray


@dataclass
class Results:
    """Numbers by encoder and measure, {encoder: {"R@1-5": Estimate}}, and what chance gives."""

    scenes: int
    numbers: dict[str, dict[str, Estimate]]
    chance: dict[str, float] = field(default_factory=dict)
    probe_scenes: tuple[int, int] | None = None
    """Scenes that the probe was trained on and scored on; None: the data set names no classes."""

    def to_dict(self) -> dict[str, Any]:
        """For evaluation.json."""
        encoders = {
            name: {measure: e.to_dict() for measure, e in values.items()}
            for name, values in self.numbers.items()
        }
        return {"chance": self.chance, **encoders, **({} if self.probe_scenes else {"probe": NO_PROBE})}


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
    """View features of all encoders, and of the teacher from the data set's embeddings.

    Raises:
        DataError: views of another size than an encoder takes.
    """
    found = tuple((samples[0].depth if samples[0].xyz is None else samples[0].xyz).shape[1:3])
    for encoder in encoders.values():
        if (wanted := tuple(encoder.vit.shape.image_size)) != found:
            raise DataError(
                f"The encoder takes views of {wanted[0]} x {wanted[1]} pixels, the data has views of "
                f"{found[0]} x {found[1]}.",
                f"Ingest it with shape.height={wanted[0]} shape.width={wanted[1]}.",
            )
    views = {name: encode(encoder, samples, batch_size) for name, encoder in encoders.items()}
    views[TEACHER] = np.stack([np.asarray(s.image_embedding, np.float32) for s in samples])
    return Features(views, np.stack([s.view_valid for s in samples]))


def measure(
    job: EvaluateJob,
    samples: Sequence[Sample],
    classes: Classes | None,
    features: Features,
    teacher: Teacher,
    kinds: Collection[MeasureKind] = tuple(MeasureKind),
) -> Results:
    """Retrieval by view captions (R@M-N) and by scene captions; the probe where the classes are known.

    Args:
        kinds: which of the two.
    """
    results = Results(len(samples), {name: {} for name in features.views})
    for line in short_scenes(job, samples):
        print(f"warning: {line}", file=sys.stderr)
    asked = query_sets(job, samples) if MeasureKind.retrieval in kinds else {}
    for label, queries in asked.items():
        texts = encode_queries(teacher, queries.texts)
        for name, views in features.views.items():
            gallery = retrieval.scene_features(views, features.view_valid)
            for best, found in retrieval.recalls(texts, gallery, queries.target, job.retrieval).items():
                results.numbers[name][f"{label}-{best}"] = found
                results.chance[f"{label}-{best}"] = retrieval.chance(len(samples), best)
    has_captions = any(captions for s in samples for captions in s.view_captions)
    if MeasureKind.probe in kinds and classes and has_captions:
        _probe(job, samples, classes, features, results)
    return results


def short_scenes(job: EvaluateJob, samples: Sequence[Sample]) -> Iterator[str]:
    """What to know of queries of more captions than a scene has captioned views."""
    counts = [len(captions) for captions in _captions_of_views(samples)]
    for m in job.retrieval.utterances:
        short = [count for count in counts if 0 < count < m]
        if short:
            yield (
                f"{len(short)} of {len(samples)} scenes have fewer than {m} captioned views: each of their "
                f"queries of {m} captions is all that they have, in another order"
            )


def _captions_of_views(samples: Sequence[Sample]) -> list[list[str]]:
    """The first caption of each view that has one, by scene."""
    scenes = [zip(s.view_captions, s.view_valid, strict=True) for s in samples]
    return [[captions[0] for captions, valid in scene if valid and captions] for scene in scenes]


def query_sets(job: EvaluateJob, samples: Sequence[Sample]) -> dict[str, retrieval.Queries]:
    """Label -> queries: "R@M" from M joined view captions, "scene" from the first scene caption."""
    config = job.retrieval
    per_view = _captions_of_views(samples)
    sets = {
        f"R@{m}": retrieval.draw_queries(per_view, m, config.queries_per_scene, config.seed)
        for m in config.utterances
    }
    sets[SCENE_QUERY] = retrieval.draw_queries([s.scene_captions[:1] for s in samples], 1, 1, config.seed)
    return {label: queries for label, queries in sets.items() if queries.texts}


def encode_queries(teacher: Teacher, texts: Sequence[str]) -> np.ndarray:
    """Joined utterances are long: FG-CLIP has a mode for that, the others cut, which a warning counts."""
    return encode_texts(teacher, texts, long=teacher.kind == FGCLIP)


def _probe(
    job: EvaluateJob, samples: Sequence[Sample], classes: Classes, features: Features, results: Results
) -> None:
    valid = features.view_valid.astype(bool)
    scene = np.repeat(np.arange(len(samples)), valid.shape[1])[valid.ravel()]
    views = [captions for s in samples for captions in s.view_captions]
    labels = np.stack([probe.named_classes(captions, classes) for captions in views])[valid.ravel()]
    held_out = probe.split_scenes(len(samples), job.probe)
    for name, of_views in features.views.items():
        found = probe.probe(of_views[valid], labels, scene, held_out, job.probe)
        results.numbers[name][PROBE] = found.macro
        results.chance[PROBE] = found.base_rate
    results.probe_scenes = int((~held_out).sum()), int(held_out.sum())
