"""`poma finetune`: a head for questions or directions on the features of a frozen encoder; or, by the kind of
the job, a language model (`jobs.finetune.llm`).

    output/name/
      config.yaml           the resolved job
      vocabulary.json       the classes of the head, in order
      questions/            the questions joined with the features of their scenes
      run.json LOCK.json    the run's identity; who is writing it
      heads/                checkpoints/ metrics.jsonl tensorboard/ incidents/
      results.json          figures of the best and of the last checkpoint on every split
      predictions/          SPLIT-best.jsonl, SPLIT-last.jsonl, for `poma score`

The same command again resumes, on as many workers as there are now.
"""

from __future__ import annotations

import argparse
from functools import partial

from jobs.common.cluster import ray_cluster
from jobs.common.run_layout import CONFIG_KEY, run_storage
from jobs.doctor.command import refuse_no_room
from jobs.evaluate.tables import plain_table
from jobs.finetune.config import FinetuneJob
from jobs.finetune.evaluate import PREDICTIONS, RESULT_KEY, Results, evaluate
from jobs.finetune.llm import command as llm
from jobs.finetune.llm.config import FinetuneLlmJob
from jobs.finetune.resolve import check_settings, resolve, write_vocabulary
from jobs.finetune.tables import tables_of
from jobs.jobfile import read
from jobs.pretrain.check import check
from jobs.pretrain.launch import launch
from plinth.errors import STOPPED_EXIT_CODE, raise_together
from plinth.observe.terminal import log_to_terminal


def run(arguments: argparse.Namespace) -> int:
    """Read the job, resolve it, check it, launch it, score it; returns the exit code."""
    file = read(arguments.job)
    if file.kind == FinetuneLlmJob.kind:
        of_llm = file.resolve(FinetuneLlmJob, arguments.overrides)
        log_to_terminal()
        return llm.run_job(of_llm, arguments.accept_changes)
    job = file.resolve(FinetuneJob, arguments.overrides)
    log_to_terminal()
    return run_job(job, arguments.accept_changes)


def run_job(job: FinetuneJob, accept_changes: bool = False) -> int:
    """The same for a job that was read before."""
    results = train_and_score(job, accept_changes)
    storage = run_storage(job)
    if results is None:
        print(f"{storage.uri}: stopped as asked; the same command resumes from there")
        return STOPPED_EXIT_CODE
    for table in tables_of(results):
        print("\n" + plain_table(table))
    print(f"\n{storage.uri}: figures in {RESULT_KEY}, answers for `poma score` in {PREDICTIONS}/")
    print(f"{storage.uri}: done; `poma ask {storage.uri} SCENE QUESTION` asks it")
    return 0


def train_and_score(job: FinetuneJob, accept_changes: bool = False) -> Results | None:
    """Resolve the job, check it, train what is missing and score it; None where it was asked to stop."""
    raise_together([partial(refuse_no_room, job), partial(check_settings, job)])
    resolved = resolve(job, accept_changes)
    checked = check(job, [resolved.stage])
    storage = run_storage(job)
    print(f"job: {storage.uri}/{CONFIG_KEY}")
    if too_many := [k for k in job.qa.best if k > len(resolved.answers.texts)]:
        most = len(resolved.answers.texts)
        print(f"qa.best: {', '.join(f'EM@{k}' for k in too_many)} is EM@{most}: there are {most} answers")
    with ray_cluster(job.ray, job.fit.workers.max, saves_on_sigterm=True):
        write_vocabulary(storage, resolved.answers)
        end = launch(job, checked)
    return None if end.is_stopped else evaluate(job, resolved)
