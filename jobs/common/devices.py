"""Where the models of a process run."""

from __future__ import annotations

import sys


def own_device() -> str:
    """The device of this process: in a Ray task or actor the GPU that it claimed, else any GPU there is.

    Ray leaves a process that has claimed none with the sight of all GPUs (`jobs.common.cluster`); those are
    others'.
    """
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    ray = sys.modules.get("ray")  # importing it takes seconds, and where it is not imported it does not run
    if ray is None or not ray.is_initialized() or ray.get_runtime_context().get_task_id() is None:
        return "cuda"
    return "cuda" if ray.get_gpu_ids() else "cpu"
