"""`poma locate DATA SCENE TEXT...`: the views of a scene ranked by their cosine with texts, as a page."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jobs.common import models
from jobs.common.datasets import open_dataset
from jobs.common.devices import own_device
from jobs.common.flags import storage_options
from jobs.display.text import aligned
from jobs.evaluate import encoders, measure
from jobs.evaluate.texts import encode_texts
from jobs.view.arguments import page_config
from jobs.view.page import write_page
from jobs.view.ranked import ranked_page
from jobs.view.scene import find, views_of
from plinth.errors import ConfigError, DataError
from plinth.redaction import printable
from poma3d.evaluate.retrieval import normalise
from poma3d.export import SceneEncoder
from poma3d.pretrained.config import TeacherConfig, TeacherRecord
from poma3d.sample import Sample

BATCH = 4
"""Scenes that pass through the encoder at once."""
PRINTED = 3
"""Views of a text that the terminal shows."""


def run(arguments: argparse.Namespace) -> int:
    """Write the page and print the best views; returns the exit code."""
    config, options = page_config(arguments), storage_options(arguments)
    texts = [text.strip() for text in arguments.texts]
    if not all(texts):
        raise ConfigError("A text is empty.", "Say what is to be found.")
    dataset = open_dataset(arguments.data, options)
    samples = find(dataset, arguments.scene)
    named = TeacherConfig(arguments.teacher, arguments.teacher_revision) if arguments.teacher else None
    encoder = encoders.load(arguments.run or arguments.encoder, options, named)
    teacher = named or teacher_of(encoder, arguments.encoder or arguments.run)
    check_teacher(encoder, models.record(teacher, options))
    device = own_device()
    features = view_features(encoder.to(device), samples)
    opened = models.open_teacher(teacher, options, device)
    cosines = normalise(features) @ normalise(encode_texts(opened, texts)).T
    page, ranked = ranked_page(arguments.scene, samples, texts, cosines, config)
    path = write_page(page, arguments.output)
    for text, ranking in zip(texts, ranked, strict=True):
        left_out = f" (the best {PRINTED} of {len(ranking)} views)" if len(ranking) > PRINTED else ""
        print(printable(text) + left_out)
        print(
            "\n".join(aligned([[f"  {name}", f"cosine {cosine:.3f}"] for name, cosine in ranking[:PRINTED]]))
        )
    print(path)
    return 0


def teacher_of(encoder: SceneEncoder, uri: str) -> TeacherConfig:
    """The teacher that embeds the texts: where a run has it, or an export says that it was.

    Raises:
        ConfigError: the encoder does not say where its teacher lies, or it is not there any more.
    """
    said = encoder.provenance
    if not said.teacher_source:
        raise ConfigError(
            f"{uri} does not say where its teacher lies.",
            "Name the teacher's folder or hub id with --teacher.",
        )
    if Path(said.teacher_source).is_absolute() and not Path(said.teacher_source).is_dir():
        raise ConfigError(
            f"The teacher of {uri} was in {said.teacher_source}, and there is no such folder here.",
            "Name it with --teacher.",
        )
    return TeacherConfig(said.teacher_source, said.teacher_revision or None, said.teacher_kind)


def check_teacher(encoder: SceneEncoder, teacher: TeacherRecord) -> None:
    """Refuse texts of another teacher than the one whose space the encoder was trained into.

    Raises:
        ConfigError: naming both.
    """
    said = encoder.provenance
    if not said.teacher_revision:  # an encoder of a test, or of code that does not say
        return
    trained = TeacherRecord(said.teacher, said.teacher_revision, teacher.embedding)
    if not teacher.matches(trained):
        raise ConfigError(
            f"The encoder was trained with the teacher {said.teacher} at {said.teacher_revision}, the texts "
            f"would be embedded by {teacher.name} at {teacher.revision}: cosines between them mean nothing.",
            "Name the encoder's teacher with --teacher.",
        )


def view_features(encoder: SceneEncoder, samples: Sequence[Sample]) -> np.ndarray:
    """Unit features float32 [n, E] of the views that are no repeats, in the order of `views_of`.

    Raises:
        DataError: views of another size than the encoder's.
    """
    try:
        features = measure.encode(encoder, samples, BATCH)
    except ValueError as error:
        raise DataError(
            f"The encoder cannot read this data set: {error}.", "Ingest it in the size of the run's data."
        ) from None
    found: np.ndarray = np.stack([features[each.sample, each.view] for each in views_of(samples)])
    return found
