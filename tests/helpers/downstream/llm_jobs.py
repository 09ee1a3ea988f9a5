"""Job files of tiny language models, and what they need."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from jobs.cli import main
from tests.helpers.downstream import llm
from tests.helpers.tiny_jobs import write

NEW = {"new": {"vocabulary": 400, "width": 32, "layers": 1, "heads": 2, "mlp_width": 48}, "tune": "full"}


def make(prepared: Path, home: Path) -> None:
    """Rooms, features with and without patches, an encoder and a model, below `home`."""
    for name in ("rooms", "teacher", "encoder", "features"):
        shutil.copytree(prepared / name, home / name)
    job = {
        "kind": "features", "encoder": str(home / "encoder"), "data": str(home / "rooms"), "patches": True,
        "output": str(home / "patches"), "workers": 0,
    }  # fmt: skip
    assert main(["features", write(home / "features.yaml", job)]) == 0
    llm.write_model(home / "model", llm.QWEN3_VL)


def job_of(home: Path, output: Path, **changes: Any) -> dict[str, Any]:
    """A few steps in this process on what `make` made."""
    return {
        "kind": "finetune_llm",
        "name": "llm",
        "output": str(output),
        "llm": {
            "source": str(home / "model"), "model": "vision_language", "lora": {"rank": 2, "alpha": 4.0}
        },
        "scene": {"tokens": "voxels", "cell_m": 0.5, "max_voxels": 16},
        "train": {
            "features": [str(home / "patches")],
            "scenes": [str(home / "rooms")],
            "conversations": [
                {"kind": "rooms", "annotations": [str(home / "rooms/questions.jsonl")]},
                {"kind": "scene_captions", "weight": 0.5},
                {"kind": "view_captions", "weight": 0.5, "requests": ["What is this?", "Describe it."]},
            ],
        },
        "training": {
            "steps": 4, "global_batch_size": 8, "micro_batch_size": 4,
            "data": {"lanes": 2, "window_row_groups": 2, "reader": "threads"},
        },
        "optim": {"lr": 1e-2, "warmup_steps": 1},
        "checkpoint": {"every_steps": 2},
        "fit": {"workers": 0},
        **changes,
    }  # fmt: skip


def run(home: Path, output: Path, *words: str, **changes: Any) -> int:
    """Train it; the exit code."""
    return main(["finetune", write(output / "llm.yaml", job_of(home, output, **changes)), *words])
