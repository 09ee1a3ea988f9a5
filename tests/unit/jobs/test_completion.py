"""Completion on Tab: what the shell is told, as argcomplete's shell function asks for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.cli import COMMANDS
from jobs.common.run_layout import CONFIGS

ROOT = Path(__file__).parents[3]
JOB = "jobs/configs/pretrain.yaml"


def completions(line: str, folder: Path) -> set[str]:
    """What `poma` answers when Tab is pressed at the end of `line`."""
    answer = folder / "answer"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT / "platform"), str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
        "_ARGCOMPLETE_COMP_WORDBREAKS": " \t\n\"'><;|&(",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
    }
    done = subprocess.run(
        [sys.executable, "-m", "jobs.cli"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {word.strip() for word in answer.read_text().splitlines()}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("poma ", {command.name for command in COMMANDS}),
        ("poma p", {"pretrain", "plan", "profile", "prove-resume"}),
        ("poma runs ", {"list", "page", "show", "logs", "stop"}),
        ("poma annotations ", {"check"}),
        ("poma annotations check sc", {"scanqa", "scanrefer"}),
        ("poma score sqa3d --un", {"--unknown-answers"}),
        ("poma checkpoints prune demo/run --keep", {"--keep-last", "--keep-every", "--keep-best"}),
        (f"poma pretrain {JOB} --", {"--help", "--accept-changes"}),
        ("poma pretrain jobs/configs/pre", {JOB}),
        ("poma sweep jobs/configs/", {path.relative_to(ROOT).as_posix() for path in CONFIGS.glob("*.yaml")}),
        (f"poma plan {JOB} --cluster clusters/lo", {"clusters/local.yaml"}),
        (f"poma pretrain {JOB} optim.w", {"optim.weight_decay=", "optim.warmup_steps="}),
        ("poma sweep jobs/configs/sweep.yaml sweep.tri", {"sweep.trials="}),
    ],
)
def test_what_may_follow(line: str, expected: set[str], tmp_path: Path) -> None:
    assert completions(line, tmp_path) == expected


def test_it_costs_nothing_at_start() -> None:
    """`poma --help` does not wait for it."""
    code = "import sys, jobs.cli; sys.exit('argcomplete' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
