"""Every command of the documentation is run by a test, run here, or marked as not run with the reason.

`poma` commands are compared with the real command line and, where they name a shipped job file, with its
schema: a flag or a key that is gone fails here, whoever runs the command.
"""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import nullcontext, suppress
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import poma3d.auto
from jobs import cli, jobfile
from jobs.cli import main
from jobs.common.run_layout import STAGES, TRAINING
from jobs.finetune.llm.config import FinetuneLlmJob
from jobs.ingest.config import ReaderConfig
from jobs.lift.config import LifterConfig
from plinth import plugins
from plinth.config import MissingValues
from plinth.schema import describe
from poma3d import export
from poma3d.auto.language.folder import save_merged
from poma3d.export import Provenance, SceneEncoder
from tests.helpers import tiny
from tests.helpers.docs.pages import PAGES, ROOT, Block, Command, blocks, commands
from tests.helpers.downstream import handed_on, llm
from tests.helpers.scans import camera_matrix, full_pose, room

COMMANDS = [each for page in PAGES for block in blocks(page, "bash") for each in commands(block)]
PYTHON = [block for page in PAGES for block in blocks(page, "python")]

PRETRAIN = "tests/unit/jobs/pretrain"
RUN_BY = {
    r"poma ingest": "tests/integration/train/test_end_to_end.py::commands",
    r"poma embed": "tests/integration/train/test_end_to_end.py::commands",
    r"poma pretrain .*--accept-changes": f"{PRETRAIN}/test_data_versions.py::test_a_run_moves_when_told",
    r"poma pretrain": "tests/integration/train/test_end_to_end.py::commands",
    r"poma evaluate .*benchmarks": "tests/unit/jobs/evaluate/test_benchmarks_of_evaluate.py::*",
    r"poma view": "tests/unit/jobs/view/test_view_page.py::test_poma_view",
    r"poma locate": "tests/unit/jobs/locate/test_locate_command.py::*",
    r"poma evaluate": "tests/integration/train/test_end_to_end.py::commands",
    r"poma export .*run=runs/llm": "tests/unit/jobs/export/test_export_language_model.py::*",
    r"poma export .*--format": "tests/unit/jobs/export/test_export_command.py::*",
    r"poma export": "tests/integration/train/test_end_to_end.py::commands",
    r"poma shards (inspect|verify|preview)": "tests/unit/jobs/ingest/test_data_commands.py::*",
    r"poma lift": "tests/unit/jobs/lift/test_lift.py::*",
    r"poma caption": "tests/unit/jobs/caption/test_caption.py::*",
    r"poma sweep (?!show|promote)": "tests/integration/sweep/test_sweep_s3.py::*",
    r"poma sweep (show|promote)": "tests/integration/sweep/test_sweep_s3.py::*",
    r"poma features": "tests/unit/jobs/features/test_features.py::*",
    r"poma questions": "tests/unit/jobs/questions/test_questions_command.py::*",
    r"poma ask": "tests/unit/jobs/ask/test_ask.py::*",
    r"poma finetune @llm": "tests/unit/jobs/finetune/test_finetune_llm.py::*",
    r"poma generate": "tests/unit/jobs/generate/test_generate.py::*",
    r"poma finetune": "tests/unit/jobs/finetune/test_finetune.py::*",
    r"poma prove-resume": "tests/integration/train/test_prove_resume.py::*",
    r"poma profile": "tests/unit/jobs/profile/test_profile_command.py::*",
    r"poma doctor": "tests/unit/jobs/doctor/test_doctor.py::*",
    r"poma runs (show|logs)": "tests/unit/jobs/test_planted_secrets.py::*",
    r"poma runs stop": "tests/unit/jobs/runs/test_stop.py::*",
    r"poma runs page": "tests/unit/jobs/runs/test_compare_runs.py::test_a_folder_without_runs_is_refused",
    r"poma runs list": "tests/unit/jobs/runs/test_runs.py::test_command_line",
    r"poma annotations check": "tests/unit/jobs/annotations/test_annotations_command.py::*",
    r"poma score": "tests/unit/jobs/score/test_score_command.py::*",
    r"poma checkpoints list": "tests/integration/train/test_end_to_end.py::commands",
    r"poma checkpoints (verify|repair|prune|pin)": "tests/unit/jobs/checkpoints/test_checkpoints.py::*",
    r"poma submit .*--render": "tests/unit/jobs/submit/test_kubernetes.py::*",
    r"poma submit": "tests/integration/cluster/test_submit_ray.py::*",
    r"python examples/hand_off\.py": "tests/unit/examples/test_hand_off.py::*",
    r"python examples/own_reader\.py": "tests/unit/examples/test_own_reader.py::*",
    r"python examples/own_stage\.py": "tests/integration/test_own_stage.py::*",
}
"""Pattern of a command -> the test, or the helper of one, that runs this form of it; * is any of its file."""

HERE = r"poma --help|poma \S+( \S+)? --help|poma config|poma plan|make \S+$"
"""Commands that are run by `test_it_runs_here`."""

FRAMES = 4
OWN_CLASSES = {"MyReader": ReaderConfig, "FlatLifter": LifterConfig}
"""Class of a page -> the section of a job that takes it."""


def words_of(command: Command) -> list[str]:
    return shlex.split(command.text)


def runs_here(command: Command) -> bool:
    return not command.not_run and re.match(HERE, command.text) is not None


def poma_commands() -> list[Command]:
    return [each for each in COMMANDS if each.text.startswith("poma ")]


def test_there_are_commands() -> None:
    assert len(COMMANDS) > 40
    assert len(PYTHON) > 2


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_every_command_has_its_test(command: Command) -> None:
    if command.not_run or runs_here(command):
        return
    found = [test for pattern, test in RUN_BY.items() if re.match(pattern, command.text)]
    assert found, f"{command}: no test runs it; add one to RUN_BY, or mark the command with its reason"


@pytest.mark.parametrize(("pattern", "test"), RUN_BY.items())
def test_the_table_is_true(pattern: str, test: str) -> None:
    """The test is there and names the words of the command; and a page has such a command."""
    name, _, function = test.partition("::")
    path = ROOT / name
    assert path.exists(), f"{name} has moved"
    source = path.read_text()
    functions = {node.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)}
    assert function in functions | {"*"}, f"{name} has no {function}"
    subject = re.search(r"poma ([\w-]+)|(\w+)\\\.py", pattern)
    assert subject is not None
    word = subject[1] or subject[2]
    assert re.search(rf"\b{word}\b", source), f"{name} does not mention {word}"
    assert any(re.match(pattern, command.text) for command in COMMANDS), "no page has it any more"


@pytest.mark.parametrize("command", poma_commands(), ids=str)
def test_its_words_are_those_of_the_command_line(command: Command) -> None:
    """Flags exist, and keys of a shipped job file are keys of its schema."""
    words = words_of(command)[1:]
    if "--help" in words or "--help-keys" in words:
        return
    arguments = cli.parse(words, cli.find_command(words))
    assert arguments.command == words[0]
    job = getattr(arguments, "job", None)
    if job is None or not str(job).startswith("jobs/configs/"):
        return
    given = [word for word in arguments.overrides if word != "..."]
    read = jobfile.read(ROOT / job)
    # A plan does without some values; its keys are looked at all the same.
    with suppress(MissingValues) if arguments.command == "plan" else nullcontext():
        assert read.resolve(jobfile.open_schema(read.kind), given).kind == read.kind


@pytest.mark.parametrize("command", [each for each in COMMANDS if runs_here(each)], ids=str)
def test_it_runs_here(
    command: Command, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    words = words_of(command)
    if words[0] == "make":
        make = shutil.which("make")
        if make is None:
            pytest.skip("make is not installed here")
        done = subprocess.run([make, "-n", *words[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return
    if words[1] == "plan":
        words += [flag for stage in planned(words) for flag in ("--assume", f"{stage}.samples=100")]
    if "--help" in words:
        with pytest.raises(SystemExit) as ended:
            main(words[1:])
        assert ended.value.code == 0
    else:
        assert main(words[1:]) == 0, capsys.readouterr().err
    assert capsys.readouterr().out


def planned(words: list[str]) -> list[str]:
    """Stages whose data `poma plan` has to be told of, because it is not there."""
    job = next((word for word in words if word.startswith("jobs/configs/")), None)
    is_model = job is not None and jobfile.read(ROOT / job).kind == FinetuneLlmJob.kind
    stages = (TRAINING,) if is_model else STAGES
    off = [stage for stage in stages if f"{stage}=null" in words]
    told = [stage for stage in stages if any(w.startswith(f"{stage}.samples=") for w in words)]
    return [stage for stage in stages if stage not in off + told]


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: f"{block.page}:{block.line}")
def test_python_of_the_pages_runs(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an exported encoder in `encoder` and frames as recorded; own classes are accepted."""
    teacher = tiny.save_teacher(tmp_path / "teacher", tiny.clip_model())
    encoder = SceneEncoder(tiny.tower().build(), Provenance("tiny", teacher_source=str(teacher)))
    export.save(encoder, tmp_path / "encoder")
    poma3d.auto.save(encoder, tmp_path / "handed-on")
    if "answering" in block.text:
        stage = llm.stage(trained=True).eval()
        save_merged(handed_on.trained(stage, llm.QWEN3), tmp_path / "answering")
    frames = room(views=FRAMES).frames
    monkeypatch.chdir(tmp_path)
    page = ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", page)
    names = vars(page)
    names["depth"] = np.stack([frame.depth for frame in frames])
    names["K"] = camera_matrix(frames[0].intrinsics, 3)
    names["poses"] = [full_pose(frame.pose, np.eye(3)) for frame in frames]
    exec(compile(block.text, f"{block.page}:{block.line}", "exec"), names)
    if "views" in names:
        torch.testing.assert_close(names["views"].features.norm(dim=-1), torch.ones(1, FRAMES))
    for name, section in OWN_CLASSES.items():
        if name in names:
            own = plugins.open_class(f"page:{name}", section.__name__, section.OWN_METHODS)
            describe(own.Config)


def test_the_pages_show_own_classes() -> None:
    text = "".join(block.text for block in PYTHON)
    assert all(f"class {name}" in text for name in OWN_CLASSES)
