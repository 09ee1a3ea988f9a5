"""Which scenarios of `poma prove-resume` run."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.cli import main
from jobs.jobfile import load
from jobs.pretrain.config import PretrainJob
from jobs.prove_resume.arguments import FAULTY
from jobs.prove_resume.command import STRAIGHT, scenarios
from tests.helpers.tiny_jobs import pretrain_job, write


def test_only_names_what_the_job_allows(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(folder / "job.yaml", pretrain_job(folder))
    job = load(PretrainJob, Path(path))
    assert [scenario.name for scenario in scenarios(job, [1, 2, 4])] == [STRAIGHT, *FAULTY]
    assert [scenario.name for scenario in scenarios(job, [1])] == [STRAIGHT, *FAULTY[:-1]]
    with pytest.raises(SystemExit):
        main(["prove-resume", path, "--only", "resize"])
    assert "Did you mean resized?" in capsys.readouterr().err
    alone = ["warmup.micro_batch_size=4", "warmup.global_batch_size=4", "main=null", "--only", "resized"]
    assert main(["prove-resume", path, *alone, "--folder", str(folder / "proof")]) == 2
    assert "over 1 worker alone" in capsys.readouterr().err
    assert not (folder / "proof/straight").exists(), "nothing has run"
