"""Trials that train heads: the same questions for all, measured by EM on the split that the job selects on.

output/name/questions/      of all trials: they ask the same, so that the questions are joined once
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from jobs.common.run_layout import CONFIG_KEY, HEADS, run_storage
from jobs.finetune.config import FinetuneJob
from jobs.finetune.evaluate import Scorer
from jobs.finetune.resolve import ResolvedHeads, as_decisive, resolve, write_vocabulary
from jobs.pretrain.check import check
from jobs.pretrain.config import StageLength as StageSection
from jobs.pretrain.launch import launch
from jobs.sweep.config import HeadSweepJob
from jobs.sweep.trials import FIXED_KEYS, PROBE, Trials, shortened, without
from plinth import config
from plinth.data import manifest as manifests
from plinth.launch.placement import TrialPlacement
from plinth.locations import absolute
from plinth.storage import Storage
from plinth.sweep.records import JOB_KEY, Measured, StageLength, Values
from poma3d.heads.stage import QuestionStage

OWN_KEYS = ("kind", "sweep")
"""Keys of a sweep's job file beside those of a job of `poma finetune`."""
JUDGED_BY = ("task", "directions", "vocabulary", "select_on", "unknown_answers", "question_types", "best")
"""Keys of `qa` that say what is right: trials that differ in them could not be compared."""
DECISIVE = (
    "seed", "qa", "train", "val", "test", "shuffle_scenes", "encoder", "scene", "text", "head", "heads",
    "optim",
)  # fmt: skip
"""Sections that decide the result of a trial."""


@dataclass(frozen=True)
class HeadTrials(Trials[HeadSweepJob, FinetuneJob]):
    """Trials of a `HeadSweepJob`."""

    fixed_keys = (
        *FIXED_KEYS, "train", "val", "test", "evaluate", "shuffle_scenes", "encoder.source",
        *(f"qa.{key}" for key in JUDGED_BY),
    )  # fmt: skip

    @property
    def stages(self) -> Mapping[str, StageSection]:
        """The one of the heads."""
        return {HEADS: self.job.heads}

    def metrics(self) -> set[str]:
        """The loss of the training, and EM."""
        return {"loss", "grad_norm", *QuestionStage.reported} | self.measured()

    def measured(self) -> set[str]:
        """EM@k on `qa.select_on`."""
        return {f"EM@{k}" for k in self.job.qa.best}

    def measure(self, run: Storage, stage: str, step: int) -> dict[str, Measured]:
        """EM@k of a checkpoint on the split that the job selects on, as a share of its questions."""
        text = run.read(CONFIG_KEY).decode()
        found = _scorer(text, self.storage.uri).exact_matches(step)
        return {name: Measured(each.value, each.low, each.high) for name, each in found.items()}

    def pinned(self, resumes: bool) -> HeadSweepJob:
        """No relative path, every data set of features or scenes at its version."""
        job = absolute(self.job)
        first = config.parse(self.storage.read(JOB_KEY).decode(), JOB_KEY) if resumes else {}
        splits: dict[str, Any] = {}
        for name, split in job.splits.items():
            before = first.get(name) or {}
            named = [*before.get("features", []), *before.get("scenes", [])]
            kept = dict(manifests.split_version(uri) for uri in named)
            splits[name] = replace(
                split,
                features=[_at_version(uri, kept, job) for uri in split.features],
                scenes=[_at_version(uri, kept, job) for uri in split.scenes],
            )
        return replace(job, **splits)

    def decisive(self) -> dict[str, Any]:
        """Questions, scenes or features, encoder, text tower and head."""
        full = as_decisive(self.job)
        return {key: full[key] for key in DECISIVE if key in full}

    def plain(self) -> FinetuneJob:
        """A job of `poma finetune`."""
        return without(self.job, FinetuneJob, OWN_KEYS)

    def placed(self, job: FinetuneJob) -> FinetuneJob:
        """Shortened."""
        shortened(job.heads, self.job.sweep.length)
        return job

    def admit(self, values: Values) -> None:
        """Resolve and check it; the questions are joined here, before trials start."""
        job = self.job_of(PROBE, values)
        check(job, [self._resolve(job).stage])

    def train(self, name: str, values: Values, placement: TrialPlacement, has_changed: bool) -> None:
        """As `poma finetune` does; the run's results are left to it."""
        job = self.job_of(name, values)
        resolved = self._resolve(job, has_changed)
        checked = check(job, [resolved.stage])
        write_vocabulary(run_storage(job), resolved.answers)
        launch(job, checked, placement)

    def lengths(self, values: Values) -> dict[str, StageLength]:
        """Of its stage."""
        stage = self._resolve(self.job_of(PROBE, values)).stage
        samples = stage.total_steps * stage.global_batch_size
        return {HEADS: StageLength(stage.total_steps, samples, stage.checkpoint.every_steps)}

    def _resolve(self, job: FinetuneJob, accept_changes: bool = False) -> ResolvedHeads:
        return resolve(job, accept_changes, questions_in=self.storage)


@lru_cache(maxsize=1)
def _scorer(text: str, questions_in: str) -> Scorer:
    """Of the run with this job; opened once for all its checkpoints."""
    job = config.build(FinetuneJob, [(CONFIG_KEY, config.parse(text, CONFIG_KEY))])
    return Scorer(job, resolve(job, questions_in=Storage.from_uri(questions_in, job.storage)))


def _at_version(uri: str, kept: dict[str, int | None], job: HeadSweepJob) -> str:
    """A data set at the version that it names, else that of the first start, else its newest."""
    folder, version = manifests.split_version(uri)
    storage = Storage.from_uri(folder, job.storage)
    if version is None:
        version = kept.get(storage.uri)
    if version is None:
        version = manifests.load(storage).attributes.get("version")
    return manifests.with_version(storage.uri, version)
