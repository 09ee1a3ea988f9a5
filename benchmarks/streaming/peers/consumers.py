"""Consumers of the peers, each as its documentation shows, shuffled, with a DataLoader of worker processes.

Each is a process (`workers.serve`) that is told what to read as JSON: path, where, cache, s3, batch, threads.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.distributed
import zstandard

from benchmarks.streaming.peers.columns import DEPTH, ID, SMALL, joined
from benchmarks.streaming.peers.without_pictures import import_streaming
from benchmarks.streaming.workers import Consumer, serve

SHUFFLE_VIEWS = 1000
SIZE = 224


class WithLoader:
    """A consumer that is a DataLoader; sub-classes set `loader`."""

    loader: Any

    def batches(self) -> Iterator[Any]:
        """An epoch."""
        yield from self.loader

    def rest(self) -> None:
        """Their loaders begin to read when an epoch begins."""

    def ids(self, batch: Any) -> list[str]:
        """All of them: these formats do not mark repeats."""
        return list(batch[ID])

    def state(self) -> Any:
        """What the loader gives for a checkpoint."""
        return json.loads(json.dumps(self.loader.state_dict()))

    def load(self, state: Any) -> None:
        """As the documentation says: before iterating."""
        self.loader.load_state_dict(state)


class Mds(WithLoader):
    """StreamingDataset of the community's fork."""

    def __init__(self, config: dict[str, Any]) -> None:
        streaming = import_streaming()
        remote, local = (config["where"], config["cache"]) if config["s3"] else (None, config["where"])
        batch = config["batch"]
        data = streaming.StreamingDataset(remote=remote, local=local, shuffle=True, batch_size=batch)
        self.loader = streaming.StreamingDataLoader(
            data,
            batch_size=batch,
            num_workers=config["threads"],
            collate_fn=joined,
            persistent_workers=True,
        )


class LitData(WithLoader):
    """LitData."""

    def __init__(self, config: dict[str, Any]) -> None:
        import litdata

        s3 = config["s3"]
        options = s3 and {
            "endpoint_url": s3["endpoint_url"], "region_name": s3["region"],
            "aws_access_key_id": os.environ["AWS_ACCESS_KEY_ID"],
            "aws_secret_access_key": os.environ["AWS_SECRET_ACCESS_KEY"],
        }  # fmt: skip
        data = litdata.StreamingDataset(
            config["where"], cache_dir=config["cache"], shuffle=True, drop_last=False, storage_options=options
        )
        self.loader = litdata.StreamingDataLoader(
            data,
            batch_size=config["batch"],
            num_workers=config["threads"],
            collate_fn=joined,
            persistent_workers=True,
        )


class WebDataset(WithLoader):
    """WebDataset, which has no state: an epoch that was cut begins again."""

    def __init__(self, config: dict[str, Any]) -> None:
        import webdataset

        data = (
            webdataset.WebDataset(
                config["urls"], shardshuffle=len(config["urls"]), nodesplitter=webdataset.split_by_node
            )
            .shuffle(SHUFFLE_VIEWS)
            .map(self._sample)
            .batched(config["batch"], collation_fn=joined)
        )
        self.loader = webdataset.WebLoader(
            data, batch_size=None, num_workers=config["threads"], persistent_workers=True
        )

    def state(self) -> None:
        """There is none."""

    @staticmethod
    def _sample(found: dict[str, Any]) -> dict[str, Any]:
        from webdataset import tenbin

        depth = zstandard.ZstdDecompressor().decompress(found["depth.zst"])
        small = dict(zip(SMALL, tenbin.decode_buffer(found["rest.ten"]), strict=True))
        return {ID: found["__key__"], DEPTH: np.frombuffer(depth, np.uint16).reshape(1, SIZE, SIZE), **small}


def opener(config: dict[str, Any]) -> Callable[[], Consumer]:
    """What makes the consumer that `config` names; its library is imported here."""
    torch.set_num_threads(1)
    if config["path"] == "StreamingDataset":
        import_streaming()
    elif config["path"] == "LitData":
        import litdata  # noqa: F401
    else:
        import webdataset  # noqa: F401
    if config["consumers"] > 1:
        torch.distributed.init_process_group("gloo")
    paths = {"StreamingDataset": Mds, "LitData": LitData, "WebDataset": WebDataset}
    return lambda: paths[config["path"]](config)


if __name__ == "__main__":
    serve(opener)
