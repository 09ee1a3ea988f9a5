"""Training of a language model that answers from a scene's tokens.

    output/name/
      config.yaml           the resolved job
      tokenizer.json        of a language model with new weights
      conversations/        questions, captions and answers in tokens
      run.json LOCK.json    the run's identity; who is writing it
      training/             checkpoints/ metrics.jsonl tensorboard/ incidents/

The same command again resumes, on as many workers as there are now.
"""

from __future__ import annotations

from functools import partial

from jobs.common.cluster import ray_cluster
from jobs.common.run_layout import CONFIG_KEY, run_storage
from jobs.doctor.command import refuse_no_room
from jobs.finetune.llm.config import FinetuneLlmJob
from jobs.finetune.llm.resolve import check_settings, resolve, write_tokenizer
from jobs.pretrain.check import check
from jobs.pretrain.launch import launch
from plinth.errors import STOPPED_EXIT_CODE, raise_together


def run_job(job: FinetuneLlmJob, accept_changes: bool = False) -> int:
    """Resolve it, check it, launch it; returns the exit code."""
    raise_together([partial(refuse_no_room, job), partial(check_settings, job)])
    resolved = resolve(job, accept_changes)
    checked = check(job, [resolved.stage])
    storage = run_storage(job)
    print(f"job: {storage.uri}/{CONFIG_KEY}")
    with ray_cluster(job.ray, job.fit.workers.max, saves_on_sigterm=True):
        write_tokenizer(storage, resolved)
        end = launch(job, checked)
    if end.is_stopped:
        print(f"{storage.uri}: stopped as asked; the same command resumes from there")
        return STOPPED_EXIT_CODE
    print(f"{storage.uri}: done")
    return 0
