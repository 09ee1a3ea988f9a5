"""All benchmarks of a job, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jobs.evaluate.benchmark.grounding import grounding
from jobs.evaluate.benchmark.places import localisation
from jobs.evaluate.benchmark.result import BenchmarkResult
from jobs.evaluate.benchmark.room_types import room_types
from jobs.evaluate.benchmark.scenes import scene_retrieval
from jobs.evaluate.measure import Features
from jobs.evaluate.texts import encode_texts
from plinth.errors import ConfigError
from poma3d.evaluate.retrieval import normalise
from poma3d.evaluate.zero_shot.config import BenchmarkConfig
from poma3d.pretrained.config import FGCLIP
from poma3d.pretrained.teacher import Teacher
from poma3d.sample import Sample


def check_files(config: BenchmarkConfig) -> None:
    """Refuse files that are not there, before anything is encoded.

    Raises:
        ConfigError: naming the key and the file.
    """
    named = [
        *((f"retrieval[{i}].files", name) for i, each in enumerate(config.retrieval) for name in each.files),
        *((f"grounding[{i}].files", name) for i, each in enumerate(config.grounding) for name in each.files),
        *((f"localisation[{i}].files", n) for i, each in enumerate(config.localisation) for n in each.files),
        *((f"localisation[{i}].scans", each.scans) for i, each in enumerate(config.localisation)),
        ("room_type.labels", config.room_type.labels),
    ]
    for key, name in named:
        if name and not Path(name).expanduser().exists():
            raise ConfigError(f"benchmark.{key}: there is no {name}.", "Name a file of this machine.")


def run_benchmarks(
    config: BenchmarkConfig, samples: Sequence[Sample], features: Features, teacher: Teacher
) -> list[BenchmarkResult]:
    """Everything that `config` asks for.

    Raises:
        DataError: annotation files that cannot be used, or that have nothing in common with the data set.
    """

    def encode(texts: Sequence[str], long: bool) -> np.ndarray:
        return normalise(encode_texts(teacher, texts, long and teacher.kind == FGCLIP))

    results: list[BenchmarkResult] = []
    for i, scenes in enumerate(config.retrieval):
        results += scene_retrieval(scenes, f"benchmark.retrieval[{i}]", samples, features, encode)
    for i, views in enumerate(config.grounding):
        results += grounding(views, f"benchmark.grounding[{i}]", samples, features, encode)
    for i, places in enumerate(config.localisation):
        results += localisation(places, f"benchmark.localisation[{i}]", samples, features, encode)
    if config.room_type.labels:
        results += room_types(config.room_type, samples, features, encode)
    return results
