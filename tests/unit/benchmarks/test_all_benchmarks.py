"""`make bench`: every benchmark is run in a short setting or left out with a reason."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks import all as every

ROOT = Path(__file__).parents[3]


def test_every_benchmark_is_run_or_left_out() -> None:
    files = {path.stem for path in (ROOT / "benchmarks").glob("*.py")} - {"all"}
    rooms = {path.parent.name for path in (ROOT / "benchmarks").glob("*/__main__.py")}
    assert {name.partition("-")[0] for name in every.SHORT} | every.LONG.keys() == files | rooms


@pytest.mark.parametrize("name", every.SHORT)
def test_commands_name_modules_and_no_placeholder(name: str, tmp_path: Path) -> None:
    words = every.command(name, tmp_path / "scan", tmp_path)
    assert words is not None
    assert find_spec(words[2]) is not None
    assert not {every.SCAN, every.OUTPUT} & set(words)


def test_scan_is_asked_for(tmp_path: Path) -> None:
    assert every.command("storage", None, tmp_path) is None


def test_a_failure_is_told_and_its_output_kept(tmp_path: Path) -> None:
    log = tmp_path / "x.txt"
    assert not every.run("x", [every.sys.executable, "-c", "print('told'); raise SystemExit(3)"], log)
    assert log.read_text() == "told\n"
