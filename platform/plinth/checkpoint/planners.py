"""How `torch.distributed.checkpoint` (DCP) saves and loads slices of flat tensors; see `tensor_files`."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.default_planner import create_default_global_save_plan
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import (
    LoadPlan,
    LoadPlanner,
    ReadItem,
    SavePlan,
    SavePlanner,
    TensorWriteData,
    WriteItem,
    WriteItemType,
)
from torch.distributed.checkpoint.planner_helpers import create_read_items_for_chunk_list

from plinth.engine.zero_shards import TensorShard


class SlicesSaved(SavePlanner):
    """Each slice becomes one chunk of a one-dimensional tensor."""

    def __init__(self, shards: Sequence[TensorShard]) -> None:
        self._tensors = {shard.key: shard.tensor for shard in shards}
        self._items = [
            WriteItem(
                index=MetadataIndex(shard.key, torch.Size([shard.start])),
                type=WriteItemType.SHARD,
                tensor_data=TensorWriteData(
                    chunk=ChunkStorageMetadata(
                        offsets=torch.Size([shard.start]), sizes=torch.Size([shard.tensor.numel()])
                    ),
                    properties=TensorProperties(dtype=shard.tensor.dtype),
                    size=torch.Size([shard.numel]),
                ),
            )
            for shard in shards
        ]

    def set_up_planner(
        self, state_dict: Any, storage_meta: Any = None, is_coordinator: bool = False
    ) -> None: ...

    def create_local_plan(self) -> SavePlan:
        return SavePlan(list(self._items))

    def create_global_plan(self, all_plans: list[SavePlan]) -> tuple[list[SavePlan], Metadata]:
        return create_default_global_save_plan(all_plans)

    def finish_plan(self, new_plan: SavePlan) -> SavePlan:
        return new_plan

    def resolve_data(self, write_item: WriteItem) -> Tensor | BytesIO:
        return self._tensors[write_item.index.fqn].detach()


class SlicesLoaded(LoadPlanner):
    """Reads, for each slice, whatever parts of the saved chunks it overlaps."""

    def __init__(self, shards: Sequence[TensorShard]) -> None:
        self._shards = {shard.key: shard for shard in shards}

    def set_up_planner(
        self, state_dict: Any, metadata: Metadata | None = None, is_coordinator: bool = False
    ) -> None:
        assert metadata is not None, "the reader always has it"
        self._entries = metadata.state_dict_metadata

    def create_local_plan(self) -> LoadPlan:
        items: list[ReadItem] = []
        for shard in self._shards.values():
            chunk = ChunkStorageMetadata(
                offsets=torch.Size([shard.start]), sizes=torch.Size([shard.tensor.numel()])
            )
            entry = self._entries[shard.key]
            assert isinstance(entry, TensorStorageMetadata), "checked by read"
            items += create_read_items_for_chunk_list(shard.key, entry, [chunk])
        return LoadPlan(items)

    def create_global_plan(self, global_plan: list[LoadPlan]) -> list[LoadPlan]:
        return global_plan

    def finish_plan(self, central_plan: LoadPlan) -> LoadPlan:
        return central_plan

    def load_bytes(self, read_item: ReadItem, value: BytesIO) -> None:
        raise AssertionError("these files hold tensors only")

    def resolve_tensor(self, read_item: ReadItem) -> Tensor:
        shard = self._shards[read_item.dest_index.fqn]
        # dest_offsets count from the start of this slice, not of the tensor.
        return shard.tensor.narrow(0, read_item.dest_offsets[0], read_item.lengths[0])

    def commit_tensor(self, read_item: ReadItem, tensor: Tensor) -> None: ...
