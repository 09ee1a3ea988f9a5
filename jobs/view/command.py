"""`poma view DATA SCENE`: a scene in 3D, its cameras, its views beside their pictures, as one page."""

from __future__ import annotations

import argparse

from jobs.common.datasets import open_dataset
from jobs.common.flags import storage_options
from jobs.view.arguments import page_config
from jobs.view.page import page_of, write_page
from jobs.view.scene import find, shown_scene, spread, views_of


def run(arguments: argparse.Namespace) -> int:
    """Write the page; returns the exit code."""
    config = page_config(arguments)
    dataset = open_dataset(arguments.data, storage_options(arguments))
    samples = find(dataset, arguments.scene)
    scene = shown_scene(arguments.scene, samples, spread(views_of(samples), config.views), config)
    doubts = dict.fromkeys(text for s in samples for text in dataset.remarks(s.scene_id)[1:])
    path = write_page(page_of(scene, config, note=". ".join(doubts)), arguments.output)
    size = path.stat().st_size / 2**20
    shown = f"{len(scene.cloud.points)} points, {len(scene.views)} of {scene.of_views} views"
    print(f"{path}: {shown}, {size:.1f} MiB")
    return 0
