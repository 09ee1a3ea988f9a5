"""The command line: help reads well, every job file resolves, and a mistake is one line and exit code 2."""

from __future__ import annotations

import argparse
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from jobs import jobfile
from jobs.cli import COMMANDS, Command, find_command, main, parse, parser_of
from jobs.common.flags import storage_options
from jobs.common.run_layout import CONFIGS
from jobs.jobfile import SCHEMAS, open_schema
from jobs.pretrain.config import PretrainJob
from plinth import config
from plinth.errors import ConfigError
from plinth.schema import describe
from tests.helpers.scans import room, write_seven_scenes
from tests.helpers.tiny_jobs import ingest_job, pretrain_job, write

ROOT = Path(__file__).parents[3]
REQUIRED = {
    "ingest": ["output=x"],
    "embed": ["data=x", "teacher.revision=abc"],
    "pretrain": [
        "output=x", "teacher.revision=abc", "warmup.data.sources=[{uri: a}]", "main.data.sources=[{uri: b}]",
    ],
    "evaluate": ["run=x", "data=y", "teacher.revision=abc"],
    "export": ["run=x", "output=y"],
    "sweep": [],
    "sweep_finetune": [],
    "demo": [],
    "lift": ["output=x", "inputs=[{uri: a}]", "teacher.revision=abc"],
    "features": ["encoder=x", "data=y", "output=z"],
    "finetune": [
        "output=x",
        *(f"{split}.{key}=[a]" for split in ("train", "val", "test") for key in ("annotations", "features")),
    ],
    "finetune_llm": [],
    "generate": [
        "run=x", "output=y",
        "asked={features: [a], scenes: [b], conversations: [{kind: sqa3d, annotations: [a]}]}",
    ],
    "caption": ["data=x", "output=y", "captioner.revision=abc", "teacher.revision=abc"],
}  # fmt: skip


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert all(f"\n    {command.name}" in text for command in COMMANDS)


def flags_of(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.Action]]:
    """Every flag and positional of a parser and its actions, with the command line that it belongs to."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from flags_of(below)
        else:
            yield parser.prog, action


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_flag_says_what_it_is(command: Command) -> None:
    """Also what it is when it is left out; and files that it names as examples are there, of a right kind."""
    for prog, flag in flags_of(parser_of(command)):
        text = flag.help or ""
        assert text, f"{prog} {flag.dest}"
        assert "default" in text or flag.default in (None, False, 0, "", [], argparse.SUPPRESS), flag.dest
        for path in re.findall(r"\bclusters/\S+\.yaml", text):
            assert (ROOT / path).is_file(), f"{prog}: {path}"
        for name in re.findall(r"@\w+", text):
            assert name in jobfile.shipped(), f"{prog}: {name}"
            if command.schema:
                assert jobfile.read(Path(name)).kind == command.name, f"{prog}: {name}"


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_starts_in_its_folder(command: Command) -> None:
    """The rule of the layout, the one signature, and flags and schemas that are where the table says."""
    assert command.module == f"jobs.{command.name.replace('-', '_')}.command"
    run = importlib.import_module(command.module).run
    assert list(inspect.signature(run).parameters) == ["arguments"]
    assert inspect.signature(run).return_annotation == "int"
    if command.schema is not None:
        assert command.schema.startswith(f"jobs.{command.name}.config:")
        assert open_schema(command.name).kind == command.name


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_jobs_resolve(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kind = config.read(path).get("kind")
    given = [*REQUIRED[str(kind)]]
    if "root: ???" in path.read_text():
        given.append(f"reader.{config.read(path).reader.kind}.root=y")
    if "source: ???" in path.read_text():
        given.append("teacher.source=z")
    if kind == "finetune" and "revision: ???" in path.read_text():
        given.append("text.revision=abc")
    if kind == "finetune_llm" and "revision: ???" in path.read_text():
        known = "{kind: sqa3d, annotations: [a]}"
        seen = f"train={{features: [a], scenes: [b], conversations: [{known}]}}"
        given += ["output=x", "llm.revision=abc", seen]
    assert main(["config", str(path), *given]) == 0
    printed = capsys.readouterr().out
    again = config.build(open_schema(str(kind)), [("printed", config.parse(printed, "printed"))])
    assert config.to_yaml(again) == printed, "the printed job is a job file for the same run"


@pytest.mark.parametrize("kind", SCHEMAS)
def test_every_key_of_every_job_has_its_help(kind: str) -> None:
    bare = [key.name for key in describe(open_schema(kind)) if not key.help]
    assert not bare


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["optim.lr=fast"], "optim.lr"),
        (["optim.lrr=1"], "unknown key optim.lrr. Did you mean optim.lr?"),
        (["warmup.lanes=4"], "unknown key warmup.lanes. Did you mean data.lanes?"),
        (["zero.precision=fp8"], "zero.precision"),
        (["nonsense"], "expected an override of the form key=value"),
    ],
)
def test_unknown_key_is_one_line(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", str(CONFIGS / "pretrain.yaml"), *arguments]) == 2
    assert says in one_line(capsys)


def test_an_error_is_one_line_whatever_it_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", str(tmp_path / "a\nb\x1b[31m.yaml")]) == 2
    assert "a\\nb\\x1b[31m.yaml: no such job file" in one_line(capsys)


def test_a_missing_file_and_a_job_of_another_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", str(tmp_path / "nothing.yaml")]) == 2
    assert "no such job file" in one_line(capsys)
    job = write(tmp_path / "job.yaml", ingest_job(tmp_path / "out"))
    assert main(["pretrain", job]) == 2
    assert f"Run `poma ingest {job}`" in one_line(capsys)
    assert main(["config", write(tmp_path / "odd.yaml", {"kind": "cook"})]) == 2
    assert "kind is 'cook'" in one_line(capsys)
    assert main(["config", write(tmp_path / "odd.yaml", {"kind": ["ingest"]})]) == 2
    assert "kind is ['ingest']" in one_line(capsys)


@pytest.mark.parametrize("name", ["", "  ", ".", "..", "../x", "a/../../x", "/x", "a//b", "a\nb", "a\x1b[2J"])
def test_the_name_of_a_run_is_that_of_a_folder_below_its_output(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = write(tmp_path / "job.yaml", pretrain_job(tmp_path, name=name))
    assert main(["config", job]) == 2
    assert f"name is {name!r}, which names no folder of its own below the output" in one_line(capsys)


def test_ctrl_c_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(arguments: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("jobs.ingest.command.run", interrupted)
    assert main(["ingest", write(tmp_path / "job.yaml", ingest_job(tmp_path / "out"))]) == 130
    assert one_line(capsys) == "poma ingest: interrupted"


def test_a_result_is_not_written_where_a_version_would_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = write(tmp_path / "job.yaml", ingest_job(tmp_path / "out#1"))
    assert main(["ingest", job]) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert "out#1 is read as version 1" in line
    assert [path.name for path in tmp_path.iterdir()] == ["job.yaml"]
    assert main(["ingest", job, f"output={tmp_path}/out#one"]) == 0


def test_a_result_is_not_written_where_the_command_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job = write(tmp_path / "job.yaml", ingest_job(tmp_path / "out"))
    monkeypatch.chdir(tmp_path)
    assert main(["ingest", job, "output="]) == 2
    assert "the place for the result is empty" in one_line(capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["job.yaml"]


def test_home_is_found_in_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    write_seven_scenes(tmp_path / "scans" / "seq-00", room(views=2, size=20), np.eye(3))
    job = write(tmp_path / "job.yaml", ingest_job("~/out"))
    layout = "reader.seven_scenes={root: ~/scans, up: [0, 0, 1]}"
    assert main(["ingest", job, "reader.kind=seven_scenes", layout]) == 0
    assert (tmp_path / "out" / "MANIFEST.json").is_file()
    assert not (tmp_path / "~").exists()


def test_help_keys(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", str(CONFIGS / "pretrain.yaml"), "--help-keys"]) == 0
    said = capsys.readouterr().out
    assert "optim.lr: float = 0.0001\n    Peak learning rate" in said
    assert "evaluate_beside.kinds: list[one of retrieval, probe] = [retrieval, probe]\n" in said


def test_overrides_may_stand_after_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = str(CONFIGS / "pretrain.yaml")
    assert main(["pretrain", job, "--accept-changes", "optim.lrr=1"]) == 2
    assert "unknown key optim.lrr" in one_line(capsys)
    with pytest.raises(SystemExit):
        main(["runs", "list", "x", "a=b"])
    assert "unrecognized arguments" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--workers", "2"], "no flag --workers. Did you mean fit.workers=2?"),
        (["--lr=3e-4"], " or optim.lr=3e-4?"),
        (
            ["--accept-changes", "--nonsense=1"],
            "no flag --nonsense=1. Keys of a job are words without dashes",
        ),
    ],
)
def test_a_flag_that_is_a_key(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["pretrain", str(CONFIGS / "pretrain.yaml"), *words])
    assert ended.value.code == 2
    assert says in one_line(capsys)


def test_a_mistyped_command_and_job(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prtrain"]) == 2
    assert one_line(capsys) == "poma: there is no command 'prtrain'. Did you mean pretrain?"
    assert main(["pretrain", "@pretrian"]) == 2
    assert one_line(capsys) == "poma pretrain: @pretrian is no shipped job. Did you mean @pretrain?"


def test_the_version_names_what_a_report_of_a_bug_needs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert re.fullmatch(r"poma \d\S+ \(Python 3\.\S+, torch \S+, ray \S+, deepspeed \S+\)\n", said)


def test_shipped_jobs_have_names_in_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["config", "@demo"]) == 0
    assert "kind: demo" in capsys.readouterr().out


def test_a_local_teacher_takes_one_key(tmp_path: Path) -> None:
    """The revision and the remote code of a job file are those of the teacher that the file names."""
    given = ["output=x", "warmup=null", "main.data.sources=[{uri: y}]", f"teacher.source={tmp_path}"]
    job = jobfile.load(PretrainJob, Path("@pretrain"), given)
    assert (job.teacher.revision, job.teacher.trust_remote_code) == (None, False)
    pinned = jobfile.load(PretrainJob, Path("@pretrain"), [*given, "teacher.revision=0123"])
    assert pinned.teacher.revision == "0123"
    with pytest.raises(ConfigError, match=r"teacher\.revision"):
        jobfile.load(PretrainJob, Path("@pretrain"), [*given[:-1], "teacher.source=some/hub-id"])


def test_no_override_changes_the_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("kind: ingest\noutput: rooms\nreader: {kind: rooms}\n")
    assert main(["config", str(path), "kind=ingest"]) == 0
    assert main(["config", str(path), "kind=export"]) == 2
    assert "is ingest, which no override changes" in capsys.readouterr().err
    path.write_text("output: rooms\n")
    assert main(["config", str(path)]) == 2
    assert "has no kind. Say which job it is" in capsys.readouterr().err


def test_mistakes_of_a_sweep_are_said_before_its_data_is_opened(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", str(CONFIGS / "sweep.yaml"), "sweep.metric=R@3-7"]) == 2
    assert "sweep.metric R@3-7: no trial of this job reports it. Did you mean R@3-5?" in one_line(capsys)


def test_every_command_takes_the_names_of_an_object_store_s_keys() -> None:
    flags = ["--access-key-env", "MY_KEY", "--secret-key-env", "MY_SECRET", "--session-token-env", "MY_TOKEN"]
    for words in (["runs", "show"], ["checkpoints", "list"], ["shards", "verify"], ["sweep", "show"]):
        options = storage_options(parse([*words, "s3://bucket/x", *flags], find_command(words)))
        names = (options.access_key_env, options.secret_key_env, options.session_token_env)
        assert names == ("MY_KEY", "MY_SECRET", "MY_TOKEN"), words


def mistakes(capsys: pytest.CaptureFixture[str]) -> str:
    """What a command says of several mistakes."""
    said = capsys.readouterr().err
    assert "things to mend:" in said.splitlines()[0]
    return said


def test_mistakes_of_several_keys_are_said_together(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "@own_scans", "fit.workers=two", "optim.lrr=3", "zero.precision=fp7"]) == 2
    said = mistakes(capsys)
    assert "fit.workers is 'two', expected a whole number, or the keys min, max." in said
    assert "Did you mean optim.lr?" in said
    assert "zero.precision is 'fp7'" in said


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["ingest", "@ingest_seven_scenes", "reader.kind=sevenscenes"], "Did you mean seven_scenes?"),
        (["pretrain", "@pretrain", "zero.stage=7"], "zero.stage is 7, expected 0, 1, 2 or 3."),
        (["pretrain", "@pretrain", "name=../x"], "name is '../x', which names no folder of its own"),
        (["pretrain", "@pretrain", "output="], "the place for the result is empty"),
        (["pretrain", "@pretrain", "main.data.lanes=7"], "global_batch_size 48 is not a multiple of lanes 7"),
    ],
)
def test_a_missing_value_hides_no_mistake(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    said = mistakes(capsys)
    assert "no value for" in said
    assert says in said


def test_a_job_that_is_not_complete_is_printed_with_what_is_open(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "@pretrain", "output=here"]) == 0
    printed = capsys.readouterr()
    job = config.parse(printed.out, "printed")
    assert job.output == "here"
    assert {"teacher.revision", "main.data.sources[0].uri"} <= OmegaConf.missing_keys(job)
    assert "teacher.revision" in printed.err


def test_a_shipped_job_is_found_by_a_path_of_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["pretrain", "jobs/configs/pretrain.yaml"]) == 2
    assert "The shipped one is @pretrain" in one_line(capsys)
    assert main(["sweep", "@sweeps"]) == 2
    assert "Did you mean @sweep?" in one_line(capsys)


@pytest.mark.parametrize("source", ["nowhere/there/teacher", "./teacher", "/nowhere"])
def test_a_teacher_s_folder_that_is_not_there_is_said(
    source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = write(tmp_path / "embed.yaml", {"kind": "embed", "data": str(tmp_path), "workers": 0,
                "teacher": {"source": "a/b", "revision": "c", "trust_remote_code": True}})  # fmt: skip
    assert main(["config", job, f"teacher.source={source}"]) == 0
    assert config.parse(capsys.readouterr().out, "printed").teacher.revision is None
    assert main(["plan", "@pretrain", f"teacher.source={source}"]) == 2
    assert f"teacher.source {source}: no such folder" in one_line(capsys)


def test_words_after_two_dashes_are_no_flags() -> None:
    command = find_command(["ask"])
    with pytest.raises(SystemExit):
        parse(["ask", "run", "scene", "--ouput"], command)
    assert parse(["ask", "run", "scene", "--", "--ouput"], command).questions == ["--ouput"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["runs", "shw", "x"], "'shw' is no ACTION. Did you mean show?"),
        (["shards", "convert", "a", "b", "--codec", "jlx"], "'jlx' is no --codec. Did you mean jxl?"),
        (["score", "x"], "There are: scanqa, sqa3d"),
        (["submit", "@own_scans", "--adress", "x"], "there is no flag --adress. Did you mean --address?"),
        (["runs", "list", "--regin=x"], "there is no flag --regin. Did you mean --region?"),
        (["pretrain"], "arguments are required: job\n"),
    ],
)
def test_a_mistyped_word_of_any_command(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert says in capsys.readouterr().err
