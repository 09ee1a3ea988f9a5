"""The two encoders of a short run, and what is said of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from jobs.cli import main
from jobs.jobfile import load
from jobs.pretrain.config import PretrainJob
from jobs.pretrain.resolve import resolve
from jobs.pretrain.told import missing_terms
from poma3d import export
from tests.helpers.tiny_jobs import SIDE, ingest_job, pretrain_job, write


@pytest.mark.slow
def test_a_short_run_is_told_and_its_student_is_exported(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = write(folder / "job.yaml", pretrain_job(folder))
    assert main(["pretrain", job, "warmup=null", "optim.lr=0.01"]) == 0
    printed = capsys.readouterr().out
    assert "the target encoder has come 1% of the way from its start; " in printed
    assert "weights=student" in printed
    given = {"kind": "export", "run": str(folder / "runs/run"), "output": str(folder / "encoder")}
    made = write(folder / "export.yaml", given)
    encoders = {}
    for weights in ("target", "student"):
        assert main(["export", made, f"weights={weights}", f"output={folder / weights}"]) == 0
        encoders[weights] = export.load(folder / weights)
        assert encoders[weights].provenance.weights == weights
    points = torch.rand(1, 2, SIDE, SIDE, 3)
    features = {name: encoder(points).features for name, encoder in encoders.items()}
    assert (features["target"] - features["student"]).abs().max() > 1e-4
    found = encoders["student"].rank(encoders["student"](points), "a red chair")
    assert sorted(found.views[0].tolist()) == [0, 1]
    # An export is what it is: the other encoder is not in it.
    evaluation = {
        "kind": "evaluate", "run": str(folder / "target"), "data": str(folder / "rooms"),
        "teacher": {"source": str(folder / "teacher")},
    }  # fmt: skip
    evaluate = write(folder / "evaluate.yaml", evaluation)
    assert main(["evaluate", evaluate, "weights=student"]) == 2
    assert "exported from the target encoder" in capsys.readouterr().err
    page = folder / "runs/run/index.html"
    assert "R@1-1" not in page.read_text()
    assert main(["evaluate", evaluate, f"run={folder / 'runs/run'}"]) == 0
    assert "R@1-1" in page.read_text(), "the run's page shows its evaluation"


def test_terms_without_data_are_said_once(folder: Path) -> None:
    job = load(PretrainJob, Path(write(folder / "job.yaml", pretrain_job(folder))))
    assert list(missing_terms(job, resolve(job))) == []
    bare = ingest_job(folder / "bare", rooms=1)
    bare["shape"] |= {"captions": 0, "scene_captions": 0}
    assert main(["ingest", write(folder / "bare.yaml", bare)]) == 0
    embed = {"kind": "embed", "data": str(folder / "bare"), "teacher": {"source": str(folder / "teacher")}}
    assert main(["embed", write(folder / "embed.yaml", {**embed, "workers": 0})]) == 0
    job.main.data.sources[0].uri = str(folder / "bare")  # type: ignore[union-attr]
    job.main.data.lanes = 1  # type: ignore[union-attr]
    said = list(missing_terms(job, resolve(job)))
    assert [line.split(":")[0] for line in said] == ["main"] * 3
    assert [term in "".join(said) for term in ("view_text", "scene_text", "1 sample")] == [True] * 3
