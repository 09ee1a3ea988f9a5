"""Private names of Ray Data."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator
from typing import Any


def execution_callback() -> Any:
    """Base class of Ray Data's callbacks into its scheduling loop (`custom_execution_callback_classes`)."""
    from ray.data._internal.execution.execution_callback import ExecutionCallback

    return ExecutionCallback


def drop_data_statistics() -> None:
    """Where there is no dashboard, send nothing from this process to Ray Data's actor of statistics, which
    only a dashboard asks: a process more, 0.8 CPU-s at each start and 1 % of a core."""
    from ray._private import worker
    from ray.data._internal import stats

    if not worker.get_dashboard_url():
        for name in (
            "update_execution_metrics",
            "update_iteration_metrics",
            "register_dataset_to_stats_actor",
        ):
            setattr(stats._StatsManager, name, staticmethod(lambda *_, **__: None))
        stats._StatsManager.gen_dataset_id_from_stats_actor = staticmethod(lambda: uuid.uuid4().hex)


def block_refs(dataset: Any) -> Iterator[Any]:
    """References to the blocks of a Ray data set as they are made. The public iterators copy blocks."""
    for bundle in dataset.iter_internal_ref_bundles():
        yield from bundle.block_refs


def quiet_data_progress() -> None:
    """No progress lines of Ray Data in the terminal; their logger is named by a private module."""
    from ray.data._internal import progress

    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger(progress.__name__).setLevel(logging.ERROR)
