"""What a worker does: the stages of a run, one after the other.

Which stage it is in and how far is in the run's storage, so starting a job again, by hand or by Ray after a
worker was lost, resumes it.
"""

from __future__ import annotations

from collections.abc import Sequence

from plinth.engine import process
from plinth.launch.config import FitConfig
from plinth.observe import terminal
from plinth.storage import Storage
from plinth.train import attempt as attempts
from plinth.train.control import Control
from plinth.train.loop import run_stage
from plinth.train.outcome import StageEnd
from plinth.train.resolve import ResolvedStage


def train_stages(
    stages: Sequence[ResolvedStage],
    storage: Storage,
    config: FitConfig,
    use_gpu: bool | None,
    control: Control,
    label: str = "",
) -> StageEnd:
    """Train them on this rank; see `plinth.engine.process.start` for the GPU and the label."""
    terminal.drop_noise()  # before DeepSpeed is imported: it speaks then
    started = process.start(config.threads_per_worker, use_gpu, label, config.deterministic_kernels)
    end = StageEnd()
    first = stages[0]
    with attempts.begin(started, storage, first.run_id, control, first.metrics.logs_every_s) as attempt:
        for number, stage in enumerate(stages, 1):
            this = run_stage(stage, started, control, attempt, stages[number:])
            end = this if this.summary else end
            if this.is_stopped:
                break
    return end
