"""`poma prove-resume` on the demo job with less of everything: real Ray Train, DeepSpeed and kills."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.cli import main
from jobs.common.run_layout import CONFIGS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
SMALL = [
    "rooms.reader.rooms.rooms=64", "rooms.scenes_per_shard=32", "rooms.shards.row_group_rows=4",
    "images.reader.rooms.rooms=64", "images.scenes_per_shard=32", "images.shards.row_group_rows=8",
    "held_out.reader.rooms.rooms=4",
    "teacher.steps=4",
    "pretrain.warmup.micro_batch_size=16", "pretrain.main.micro_batch_size=8",  # so that 4 workers divide
    "pretrain.fit.cpus_per_worker=0.25",
    # Ray Data starts anew in each of some 30 workers; the order is the same without, and tested with it.
    "pretrain.warmup.data.reader=threads", "pretrain.main.data.reader=threads",
]  # fmt: skip


def test_prove_resume_finds_the_same_result_after_kills_and_resizes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["prove-resume", str(CONFIGS / "demo.yaml"), *SMALL]
    # A kill of a rank in mid-step is test_fit_ray's, one of the driver test_sweep_s3's.
    only = ["--only", "killed-upload", "resized"]
    assert main([*command, "--steps", "8", "--every", "4", *only, "--folder", str(tmp_path)]) == 0
    table = capsys.readouterr().out.split("verdict")[1].splitlines()
    verdicts = {line.split()[0]: line for line in table if "RESULT" in line or "DIFFERS" in line}
    assert set(verdicts) == {"killed-upload", "resized"}
    assert all(line.rstrip().endswith("SAME RESULT") for line in verdicts.values())
    page = (tmp_path / "prove-resume.html").read_text()
    assert "every run is the same as the straight one" in page
