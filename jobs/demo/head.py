"""The demo's last part: a head that answers questions about rooms from the encoder's features."""

from __future__ import annotations

from pathlib import Path

from jobs.common.run_layout import run_storage
from jobs.demo.config import DemoJob
from jobs.evaluate.tables import Table
from jobs.features import command as features
from jobs.features.config import FeaturesJob
from jobs.finetune import command as finetune
from jobs.finetune.config import VAL, FinetuneJob
from jobs.finetune.evaluate import LAST, MAJORITY, Results
from jobs.finetune.tables import tables_of
from jobs.ingest.config import IngestJob
from jobs.questions import command as questions
from jobs.questions.tower import write_tower
from plinth.storage import StorageOptions
from poma3d.annotations import rooms
from poma3d.synthetic.questions import TYPES

EXACT = "EM@1"
ASKED = "how many chairs are there?"


def train_head(job: DemoJob, head: FinetuneJob) -> Results | None:
    """Questions, features of the trained encoder, the head; what is there is not made again. None where it
    was asked to stop."""
    val = head.val
    assert val is not None, "the demo's job file names it"
    for data, split in ((job.rooms, head.train), (job.held_out, val)):
        asked = questions.ask(
            data.output, StorageOptions(), job.questions_per_type, data.reader.rooms.seed, list(TYPES)
        )
        Path(split.annotations[0]).write_text(rooms.write(asked))
        if data is job.rooms:
            write_tower(asked, Path(head.text.source), head.seed)
        features.features(_features(job, data, split.features[0]))
    return finetune.train_and_score(head)


def said(head: FinetuneJob, results: Results, scene_id: str) -> str:
    """What came of it, and how to ask it something."""
    split = results.splits[VAL]
    found, common = (split.figures[label].overall[EXACT] for label in (LAST, MAJORITY))
    rows = split.counts["rows"]
    return (
        f"{rows} questions about rooms that nothing has trained on: {found.value:.1%} answered rightly "
        f"[{found.low:.1%}, {found.high:.1%}], {common.value:.1%} by the commonest answer of each type\n"
        f'ask one: poma ask {run_storage(head).uri} {scene_id} "{ASKED}"'
    )


def table(results: Results) -> Table:
    """By type of question, for the report."""
    return tables_of(results)[0]


def _features(job: DemoJob, data: IngestJob, output: str) -> FeaturesJob:
    return FeaturesJob(
        encoder=f"{job.pretrain.output}/{job.pretrain.name}", data=data.output, output=output, workers=0
    )
