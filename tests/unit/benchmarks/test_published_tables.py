"""docs/benchmarks.md: it is what its generator writes, and each command of it fills its row.

The commands are run on a miniature of the published files, with a tiny encoder and text tower; what is
appended to them makes them small and nothing else.
"""

from __future__ import annotations

import json
import re
import shlex
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.published import __main__ as generator
from benchmarks.published.page import page, wrapped
from benchmarks.published.tables import EVALUATE, FINETUNE, SCORE, Measured, Ours, Row, published
from benchmarks.published.take import take
from jobs import cli, jobfile
from jobs.cli import main
from tests.helpers.annotations import miniature

TABLES = published()
ROWS = list(TABLES.rows.values())
TOWER = ["text.source=teacher", "text.revision=null"]
SMALL = {
    "ingest": [
        f"shape.views={miniature.VIEWS}", f"shape.height={miniature.SIDE}", f"shape.width={miniature.SIDE}",
        "workers=0", "scenes_per_shard=2",
    ],
    "embed": ["teacher.source=teacher", "workers=0"],
    "features": ["workers=0", "gpus_per_worker=0"],
    "finetune": [
        *TOWER, "fit.workers.min=0", "fit.workers.max=0", "fit.gpus_per_worker=0", "heads.epochs=null",
        "heads.steps=2", "heads.global_batch_size=2", "heads.micro_batch_size=1", "heads.data.lanes=2",
        "heads.data.window_row_groups=1", "heads.data.reader=threads", "optim.warmup_steps=1",
        "checkpoint.every_steps=2", "shards.row_group_rows=1", "evaluate.bootstrap.draws=20",
    ],
    "evaluate": ["teacher.source=teacher"],
}  # fmt: skip
PINS = re.compile(r"\S*revision=COMMIT")
"""The miniature's models are folders: there is no commit to pin."""


def parsed(command: str) -> Namespace:
    words = shlex.split(command)
    assert words[0] == "poma"
    return cli.parse(words[1:], cli.find_command(words[1:]))


def run(command: str, *more: str) -> int:
    """A command of the page, made small."""
    words = [word for word in shlex.split(command)[1:] if not PINS.fullmatch(word)]
    return main([*words, *SMALL.get(words[0], []), *more])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature, after the commands that come before all others."""
    folder = tmp_path_factory.mktemp("published")
    miniature.write_files(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for command in TABLES.prepare:
            if "encoder=runs/poma3d" in command:
                miniature.write_encoder(folder)
            assert run(command) == 0, command
        miniature.write_other_features(folder)
        (folder / "data/scene_point").symlink_to(folder / "data/scannet")
    return folder


def test_the_page_is_what_the_generator_gives() -> None:
    assert generator.PAGE.read_text(encoding="utf-8") == page(TABLES, Ours.read())


def test_every_figure_of_the_paper_has_a_cell_of_ours_and_a_way_to_fill_it() -> None:
    text = page(TABLES, Ours())
    for row in ROWS:
        [line] = [line for line in text.splitlines() if line.startswith(f"| `{row.key}` |")]
        assert f"*empty*: needs {row.ours.needs}" in line
        for figures in row.published.values():
            assert all(figure in line for figure in figures)
        assert "\n".join([f"# {row.key}", *wrapped(row.ours.command)]) in text


@pytest.mark.parametrize("command", [*TABLES.prepare, *(row.ours.command for row in ROWS)])
def test_every_command_resolves_against_its_shipped_job(command: str) -> None:
    joined = " ".join(line.removesuffix(" \\") for line in wrapped(command))
    assert shlex.split(joined) == shlex.split(command)
    arguments = parsed(command)
    if not hasattr(arguments, "job"):
        return
    read = jobfile.read(arguments.job)
    assert read.kind == arguments.command
    job = read.resolve(jobfile.open_schema(read.kind), arguments.overrides)
    if hasattr(job, "validate"):
        job.validate()


def written(row: Row) -> Path:
    """What the command of a row writes."""
    arguments = parsed(row.ours.command)
    if row.ours.kind == SCORE:
        return Path(arguments.json)
    job: Any = jobfile.read(arguments.job).resolve(
        jobfile.open_schema(arguments.command), arguments.overrides
    )
    if row.ours.kind == FINETUNE:
        return Path(job.output) / job.name / "results.json"
    assert row.ours.kind == EVALUATE
    return Path(job.output) / "evaluation.json"


@pytest.mark.parametrize("row", ROWS, ids=[row.key for row in ROWS])
def test_the_command_of_a_row_fills_it(row: Row, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    few = ["benchmark.room_type.shots=[1]"] if row.key == "room_type" else []
    assert run(row.ours.command, *few) == 0
    if few:  # 10 rooms of each type are not there: that cell cannot be filled, and nothing is made up
        with pytest.raises(ValueError, match="10-shot"):
            take(row, written(row))
        return
    measured = take(row, written(row))
    assert list(measured.cells) == row.measures
    for cell in measured.cells.values():
        assert 0 <= float(cell.split()[0]) <= 100
    line = next(
        line
        for line in page(TABLES, Ours({row.key: measured})).splitlines()
        if line.startswith(f"| `{row.key}` |")
    )
    assert "*empty*" not in line
    assert all(cell in line for cell in measured.cells.values())


def test_a_model_s_answers_are_scored_by_the_published_rule(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of four answers is wrong."""
    monkeypatch.chdir(home)
    row = TABLES.rows["llm_sqa3d"]
    assert run(row.ours.command) == 0
    assert take(row, written(row)).cells == {"EM@1": "75.0"}


def test_a_file_of_another_task_fills_nothing(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    file.write_text(json.dumps({"task": "scanqa", "splits": {}}))
    with pytest.raises(ValueError, match="of scanqa, the row of sqa3d"):
        take(TABLES.rows["sqa3d"], file)
    with pytest.raises(ValueError, match="benchmarks"):
        take(TABLES.rows["scanrefer"], file)


def test_ours_are_kept_and_counted(tmp_path: Path) -> None:
    ours = Ours({"scanqa": Measured({"EM@1": "22.1", "EM@10": "52.0"}, "step 3", "results.json")})
    ours.write(tmp_path / "ours.json")
    assert Ours.read(tmp_path / "ours.json") == ours
    cells = sum(len(row.measures) for row in ROWS)
    assert f"**2 of {cells} cells of ours are filled**" in page(TABLES, ours)
    assert "22.1 / 52.0 (step 3)" in page(TABLES, ours)
