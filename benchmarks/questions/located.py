"""Where a text was said, in rooms that nothing has trained on: the views of the room ranked by the text.

    poma demo
    python -m benchmarks.questions.located [--folder demo] [--nearest 1]

Every view of the held-out rooms is described by the last, most particular, of its captions, as if somebody
had said it there; the views nearest to that camera are right. It is `benchmark.localisation` of
`poma evaluate`, with the rooms' cameras in place of annotators'. Intervals are over rooms.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jobs.common import models
from jobs.common.datasets import open_dataset
from jobs.common.devices import own_device
from jobs.evaluate import encoders, measure
from jobs.evaluate.benchmark.places import located
from jobs.evaluate.tables import plain_table
from jobs.evaluate.texts import encode_texts
from plinth.storage import Storage, StorageOptions
from poma3d.annotations.poses import WORLD, as_vector, quaternion_of
from poma3d.annotations.rows import CameraText
from poma3d.evaluate.bootstrap import Estimate
from poma3d.evaluate.retrieval import normalise
from poma3d.evaluate.zero_shot.config import LocalisationConfig
from poma3d.sample import Sample

BATCH = 8
"""Rooms that pass through an encoder at once."""
BEST = [1, 2, 3]
"""Of the four views of a room."""


def main() -> None:
    """Print the table, and by how much it is better than chance."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("demo"), help="of `poma demo`")
    parser.add_argument("--run", default="demo", help="name of its pretraining run")
    parser.add_argument("--nearest", type=int, default=1, help="views that count as right")
    arguments = parser.parse_args()
    options = StorageOptions()
    run = str(arguments.folder / "runs" / arguments.run)
    job = encoders.read_job(Storage.from_uri(run, options))
    dataset = open_dataset(str(arguments.folder / "data" / "held_out"), options)
    samples = dataset.samples()
    known = {
        measure.MODEL: encoders.load(run, options, job.teacher),
        measure.UNTRAINED: encoders.untrained(job, dataset.shape),
    }
    device = own_device()
    features = measure.gather_features({n: e.to(device) for n, e in known.items()}, samples, BATCH)
    teacher = models.open_teacher(job.teacher, options, device)

    def encode(texts: Sequence[str], long: bool) -> np.ndarray:
        return normalise(encode_texts(teacher, texts, long))

    config = LocalisationConfig(nearest=arguments.nearest, best=BEST)
    source = ["the last caption of every view"]
    result = located(said_at_views(samples), source, config, "held_out", samples, features, encode)
    print(plain_table(result.table()))
    found, chance = result.figures[measure.MODEL]["R@1"], result.references["chance"]["R@1"]
    assert isinstance(found, Estimate)
    print(
        f"R@1 {found.value:.3f} [{found.low:.3f}, {found.high:.3f}] against {chance:.3f} by chance: "
        f"{found.value / chance:.2f} times [{found.low / chance:.2f}, {found.high / chance:.2f}]"
    )


def said_at_views(samples: Sequence[Sample]) -> list[CameraText]:
    """The last caption of every captioned view that is no repeat, as if said at its camera."""
    return [
        CameraText(
            sample.scene_id,
            sample.view_captions[view][-1],
            as_vector(np.asarray(sample.pose[view][:, 3], np.float64)),
            quaternion_of(np.asarray(sample.pose[view][:, :3], np.float64)),
            WORLD,
        )
        for sample in samples
        for view in np.flatnonzero(sample.view_valid).tolist()
        if sample.view_captions[view]
    ]


if __name__ == "__main__":
    main()
