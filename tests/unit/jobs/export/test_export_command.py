"""`poma export` in both formats."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from transformers import AutoModel

from jobs.cli import main
from jobs.export.arguments import FORMATS
from jobs.export.config import ExportFormat
from poma3d import export
from tests.helpers.tiny_jobs import SIDE, pretrain_job, write


def test_the_flag_has_the_formats_of_the_schema() -> None:
    assert {one.value for one in ExportFormat} == set(FORMATS)


def test_an_encoder_without_its_run_is_handed_on(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And what was written is an export that other commands take."""
    words = {"kind": "export", "run": str(home / "encoder"), "output": str(home / "theirs")}
    job = write(home / "export.yaml", words)
    assert main(["export", job, "--format", "transformers"]) == 0
    assert "import poma3d.auto" in capsys.readouterr().out
    text = (home / "theirs/README.md").read_text()
    assert "this was exported from an encoder whose run is elsewhere" in text
    assert str(home) not in text
    assert main(["export", job, f"run={home / 'theirs'}", f"output={home / 'again'}"]) == 0
    own, theirs = export.load(home / "again"), AutoModel.from_pretrained(home / "theirs")
    points = torch.rand(1, 2, SIDE, SIDE, 3)
    with torch.inference_mode():
        assert torch.equal(own(points).features, theirs(points).features)
    with pytest.raises(SystemExit):
        main(["export", job, "--format", "onnx"])
    assert "Did you mean" in (said := capsys.readouterr().err) or "There are: poma3d, transformers" in said


def test_what_is_no_earlier_export_of_the_format_stays(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = {"kind": "export", "run": str(home / "encoder"), "output": str(tmp_path / "out")}
    job = write(tmp_path / "export.yaml", words)
    own, theirs = ["export", job], ["export", job, "--format", "transformers"]
    (tmp_path / "out/.git").mkdir(parents=True)
    (tmp_path / "out/.git/HEAD").write_text("a clone of a repository that is empty yet")
    for mine, other in ((own, theirs), (theirs, own)):
        assert main(mine) == 0
        assert main(mine) == 0, "over an earlier export of the same format"
        before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.is_file()}
        refused(other, "holds something else (config.json, ", capsys)
        assert before == {
            path.name: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.is_file()
        }
        for name in before:
            (tmp_path / "out" / name).unlink()
    for config in ("{", "[]", '{"model_type": "llama"}'):
        (tmp_path / "out/config.json").write_text(config)
        refused(own, "holds something else (config.json)", capsys)
        refused(theirs, "holds something else (config.json)", capsys)
        assert (tmp_path / "out/config.json").read_text() == config


def refused(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(words) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert says in line
    assert "Give another output" in line


@pytest.mark.slow
def test_card_is_filled_from_the_run(folder: Path) -> None:
    job = write(folder / "job.yaml", pretrain_job(folder))
    assert main(["pretrain", job, "warmup=null"]) == 0
    run = folder / "runs" / "run"
    evaluation = {
        "kind": "evaluate", "run": str(run), "data": str(folder / "rooms"),
        "teacher": {"source": str(folder / "teacher")},
    }  # fmt: skip
    assert main(["evaluate", write(folder / "evaluate.yaml", evaluation)]) == 0
    words = {
        "kind": "export", "run": str(run), "output": str(folder / "out"), "format": "transformers",
        "card": {"license": "apache-2.0", "data_licenses": [{"data": "rooms", "license": "CC0-1.0"}]},
    }  # fmt: skip
    assert main(["export", write(folder / "export.yaml", words)]) == 0
    card = ModelCard.load(folder / "out" / "README.md")
    assert card.data.license == "apache-2.0"
    manifest = json.loads((folder / "rooms/MANIFEST.json").read_text())
    assert f"`{manifest['sha256']}` | `CC0-1.0` |" in card.text
    kept = json.loads((run / "evaluation.json").read_text())
    assert kept["about"]["command"] in card.text
    value = kept["this encoder"]["R@1-5"]["value"]
    [row] = [line for line in card.text.splitlines() if line.startswith("| `this encoder`")]
    assert f"{value:.3f} [" in row
    assert "steps: 4" in card.text
    assert export.weights_digest(export.load(folder / "out")) in card.text
    assert str(folder) not in card.text, "a folder of this machine"
