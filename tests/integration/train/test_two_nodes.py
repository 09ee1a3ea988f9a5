"""Two nodes of a Ray cluster, as two raylets of this machine: where reading runs with `data.ray_label`, and
what `poma doctor` says of them."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import ray

from jobs.common.ray_config import RayConfig
from jobs.doctor import nodes as doctor_nodes
from jobs.doctor.finding import Level
from jobs.pretrain.config import PretrainJob
from plinth.data import stream
from plinth.data.config import DataConfig, ReaderKind
from plinth.data.plan import Cursor
from plinth.data.sources import OpenSource
from plinth.launch.config import FitConfig, Workers
from plinth.launch.fit import fit
from plinth.storage import Storage
from plinth.world import World
from tests.helpers.datasets import make_data_set, take
from tests.helpers.toy.run import build, toy_run
from tests.helpers.toy.stage import ToyStage

pytestmark = pytest.mark.slow
STEPS = 6


@pytest.fixture(scope="module")
def data_node() -> Iterator[str]:
    """A cluster of a node that trains, with room to spare, and one that reads; the latter's id."""
    from ray.cluster_utils import Cluster

    trains = {"num_cpus": 4, "labels": {"poma-role": "train"}, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=trains)
    reads = cluster.add_node(num_cpus=1, labels={"poma-role": "data"})
    ray.init(address=cluster.address, log_to_driver=False)
    yield reads.node_id
    ray.shutdown()
    cluster.shutdown()


def noting(folder: Path, pieces: np.ndarray, *arguments: Any) -> Iterable[pa.Table]:
    """A read task that leaves a file named for its node."""
    from plinth.data.stream import read_task  # there: here it has been exchanged

    (folder / ray.get_runtime_context().get_node_id()).touch()
    return read_task(pieces, *arguments)


def test_reading_stays_on_the_nodes_with_the_ray_label(
    data_node: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers do not know the tests' folder
    seen = tmp_path / "nodes"
    seen.mkdir()
    monkeypatch.setattr(stream, "read_task", partial(noting, seen))
    source = make_data_set(tmp_path / "data")
    config = DataConfig(lanes=4, window_row_groups=2, reader=ReaderKind.ray, ray_label="poma-role=data")
    with caplog.at_level(logging.WARNING, logger="plinth"):
        batches = take([source], config, World(0, 1), Cursor(), STEPS)
    assert [path.name for path in seen.iterdir()] == [data_node]
    assert not caplog.messages
    expected = take([source], replace(config, reader=ReaderKind.threads), World(0, 1), Cursor(), STEPS)
    assert [b.sample_ids for b in batches] == [b.sample_ids for b in expected]


def build_noting(folder: Path, sources: Sequence[OpenSource]) -> ToyStage:
    """The toy stage; leaves a file named for its node."""
    (folder / ray.get_runtime_context().get_node_id()).touch()
    return build(sources)


def test_training_stays_on_the_nodes_with_the_ray_label(data_node: str, tmp_path: Path) -> None:
    """Ray would choose the head, which has more room."""
    seen = tmp_path / "seen"
    seen.mkdir()
    run = toy_run(tmp_path, build_stage=partial(build_noting, seen))
    config = FitConfig(workers=Workers(1, 2), cpus_per_worker=0.5, ray_label="poma-role=data")
    assert fit(config, [run], Storage.from_uri(tmp_path / "run")).summary["step"] == 11
    assert [path.name for path in seen.iterdir()] == [data_node]


def test_ray_label_that_no_node_has_is_a_warning(data_node: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="plinth"):
        stream.warn_if_label_is_missing("poma-role=reader")
    assert "data.ray_label poma-role=reader: no node of the cluster has it yet" in caplog.text


def test_doctor_asks_every_node_and_closes_a_ring_over_them(data_node: str) -> None:
    job = PretrainJob(
        name="run", output="runs", ray=RayConfig(address="auto"), fit=FitConfig(gpus_per_worker=1)
    )
    found = list(doctor_nodes.nodes(job))
    assert [f.level for f in found if "has the same packages" in f.what] == [Level.ok] * 2
    assert [f.what for f in found if f.level is Level.warn] == [
        "the cluster has 0 GPUs now, and 1 each are needed by 1 worker"
    ]
    (ring,) = [f for f in found if f.check == "ring"]
    assert ring.level is Level.ok
    assert ring.what.startswith("2 nodes sum 4 MiB over gloo in ")


def test_doctor_names_a_node_that_differs() -> None:
    here = doctor_nodes.facts()
    there = replace(here, versions={**here.versions, "torch": "1.0"}, shared_bytes=1 << 20)
    built = replace(here, prebuilt_ops=["fused_adam"])
    said = [(f.level, f.what) for f in doctor_nodes.compare("node-b", there, 9.0, built)]
    assert said[0] == (Level.bad, f"node-b has torch 1.0 (here {here.versions['torch']})")
    assert [level for level, _ in said[1:]] == [Level.warn] * 3
    assert "the clock of node-b is 9.0 s off" in said[1][1]
    assert "fused_adam" in said[3][1]
