"""torch's process group of Ray Train's workers, made without torch in Ray Train's controller.

`ray.train.torch.TorchTrainer` makes the same group, but the class of its settings is in a module that imports
torch, so that its controller, which computes nothing, loads torch at each start before it asks for a worker.
Here the workers alone import it.
"""

from __future__ import annotations

import importlib
import logging
import os
import socket
from dataclasses import dataclass
from typing import Any

import ray
import ray.train
from ray.train.backend import Backend, BackendConfig

LEAVE_TIMEOUT_S = 30.0
"""As Ray's own default."""

log = logging.getLogger(__name__)


class _TorchBackend(Backend):
    share_cuda_visible_devices = True
    """Workers of a node see all GPUs that they have together: NCCL copies from one to the other."""

    def on_start(self, worker_group: Any, backend_config: TorchBackend) -> None:
        worker_group.execute(_prepare)
        # Only now, when all are ready to join: until rank 0 takes the port, any process may.
        address, port = worker_group.execute_single(0, _free_address)
        worker_group.execute(_join, backend_config.collectives, address, port)

    def on_shutdown(self, worker_group: Any, backend_config: TorchBackend) -> None:
        """Ray ends the processes afterwards, so this may fail, as it does where one of them is dead."""
        try:
            ray.get(worker_group.execute_async(_leave), timeout=LEAVE_TIMEOUT_S)
        except ray.exceptions.GetTimeoutError:
            log.warning("workers did not leave their group in %g s: they are ended", LEAVE_TIMEOUT_S)
        except ray.exceptions.RayError:
            pass  # the first cause is said elsewhere


@dataclass
class TorchBackend(BackendConfig):
    """Settings of the process group.

    Args:
        collectives: the library that sums over workers, `nccl` or `gloo`.
    """

    collectives: str

    @property
    def backend_cls(self) -> type[Backend]:
        return _TorchBackend


def _prepare() -> None:
    """In a worker: import torch, which takes the longest, and set what names a rank to torch and DeepSpeed
    (https://docs.pytorch.org/docs/stable/elastic/run.html#environment-variables)."""
    importlib.import_module("torch.distributed")
    context = ray.train.get_context()
    os.environ.update(
        RANK=str(context.get_world_rank()),
        WORLD_SIZE=str(context.get_world_size()),
        LOCAL_RANK=str(context.get_local_rank()),
        LOCAL_WORLD_SIZE=str(context.get_local_world_size()),
        NODE_RANK=str(context.get_node_rank()),
    )


def _free_address() -> tuple[str, int]:
    """In rank 0: its node's address and a port that is free."""
    address = ray.util.get_node_ip_address()
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as free:
        free.bind(("", 0))
        return address, free.getsockname()[1]


def _join(collectives: str, address: str, port: int) -> None:
    """In a worker: join the group that meets at rank 0."""
    from plinth.engine.process import join_group

    os.environ.update(MASTER_ADDR=address, MASTER_PORT=str(port))
    if collectives == "nccl" and "TORCH_NCCL_BLOCKING_WAIT" not in os.environ:
        # As Ray's own: when a collective fails, close NCCL, then end the process. torch would skip the first.
        os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1")
    join_group(collectives)


def _leave() -> None:
    """In a worker: leave the group."""
    import torch.distributed

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
