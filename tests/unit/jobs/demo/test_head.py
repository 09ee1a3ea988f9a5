"""The head that ends the demo: questions, features and training in one call, and what is said of it."""

from __future__ import annotations

from pathlib import Path

from jobs.demo.config import DemoJob
from jobs.demo.head import said, table, train_head
from jobs.finetune.config import FinetuneJob
from plinth.config import parse, resolve
from tests.helpers.downstream import heads


def test_questions_features_and_a_head_from_an_encoder(home: Path) -> None:
    raw = heads.finetune_job(home)
    (home / "rooms/questions.jsonl").unlink()
    raw["train"] = raw["val"] = {
        "annotations": [str(home / "questions.jsonl")], "features": [str(home / "demo_features")],
    }  # fmt: skip
    raw["text"] = {"source": str(home / "demo_tower")}
    job = DemoJob(questions_per_type=1)
    job.pretrain.output, job.pretrain.name = str(home), "encoder"
    job.rooms.output = job.held_out.output = str(home / "rooms")
    job.head = resolve(FinetuneJob, parse(str(raw), "job"), "job")
    results = train_head(job, job.head)
    assert results is not None
    counts = results.splits["val"].counts
    assert counts["rows"] == len((home / "questions.jsonl").read_text().splitlines())
    line, ask = said(job.head, results, "room-0-0000001").splitlines()
    assert line.startswith(f"{counts['rows']} questions about rooms that nothing has trained on: ")
    assert ask == f'ask one: poma ask {home}/runs/qa room-0-0000001 "how many chairs are there?"'
    assert {"EM@1", "EM@10"} <= {row.name for row in table(results).rows}
    before = (home / "runs/qa/heads/metrics.jsonl").read_bytes()
    assert train_head(job, job.head) is not None
    assert (home / "runs/qa/heads/metrics.jsonl").read_bytes() == before, "nothing is trained twice"
