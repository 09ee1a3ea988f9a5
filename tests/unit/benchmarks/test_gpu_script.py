"""`benchmarks.gpu` where there is no GPU: the whole script on a tiny tower, without Ray and DeepSpeed, as
where torch and transformers alone are installed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import __main__ as gpu

ROOT = Path(__file__).parents[3]
BARE = """
import sys
for name in ("ray", "deepspeed", "pyarrow", "peft", "fsspec", "omegaconf", "PIL", "matplotlib"):
    sys.modules[name] = None
sys.path[:0] = [".", "platform"]
from benchmarks.gpu import __main__ as gpu
sys.exit(gpu.main())
"""
ENGINE = """
import json, sys
import torch
sys.path[:0] = [".", "platform"]
from benchmarks.gpu import __main__ as gpu
print(json.dumps(gpu.engine(gpu.Bench(torch.device("cpu"), ["tiny"], 1, None, 0.0), "tiny")))
"""


@pytest.mark.slow
def test_the_script_runs_from_torch_and_transformers_alone(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    words = ["--device", "cpu", "--tiny", "--json", str(out)]
    done = subprocess.run(
        [sys.executable, "-c", BARE, *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    found = json.loads(out.read_text())
    for kind in gpu.KINDS:
        for layout in ("again", "two ranks", "backwards"):
            assert found["bits"][f"{kind}, {layout}"] == 0
        assert found["bits"][f"{kind}, plain sums"] > 0, "a difference would be seen"
        assert found["attention and waits"][f"{kind}, attention"]
        assert found["speed tiny"][kind]["samples_per_s"] > 0
    assert found["tower tiny"]["ratio"] > 0
    assert "engine" not in found, "it needs DeepSpeed"


@pytest.mark.slow
def test_the_section_that_needs_deepspeed_runs() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ENGINE], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert all(found[f"{kind}, samples_per_s"] > 0 for kind in gpu.KINDS)


def test_no_gpu_is_said_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu"])
    assert gpu.main() == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
