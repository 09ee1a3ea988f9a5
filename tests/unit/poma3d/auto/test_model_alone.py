"""The model imports without the platform's packages, whether or not they are installed."""

from __future__ import annotations

import subprocess
import sys

from tests.helpers.wheel.requirements import ROOT, platform_modules

HEADS = "poma3d/heads"
"""Trained on rows of data sets, on the platform alone."""
OURS = ("plinth", "jobs")
IMPORT_ALL = """
import importlib, sys
for name in {blocked}:
    sys.modules[name] = None  # as if it were not installed
for name in {modules}:
    importlib.import_module(name)
sys.exit(" ".join(name for name in {blocked} if sys.modules[name] is not None) or 0)
"""


def run(modules: list[str]) -> subprocess.CompletedProcess[str]:
    code = IMPORT_ALL.format(blocked=sorted({*platform_modules(), *OURS}), modules=modules)
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


def test_all_but_the_heads_imports_without_the_platform() -> None:
    files = [path.relative_to(ROOT) for path in sorted((ROOT / "poma3d").rglob("*.py"))]
    names = [
        ".".join(file.with_suffix("").parts).removesuffix(".__init__")
        for file in files
        if not file.as_posix().startswith(HEADS)
    ]
    assert {"poma3d.auto", "poma3d.export.encoder", "poma3d.auto.model", "poma3d.network.vit"} <= set(names)
    done = run(names)
    assert done.returncode == 0, done.stderr


def test_the_block_is_one() -> None:
    for name in ("ray", "plinth"):
        done = run([name])
        assert done.returncode == 1
        assert f"import of {name} halted" in done.stderr
