"""What `poma pretrain` says before it starts: a word of memory where it is short, else nothing at no cost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from jobs.doctor import command, machine
from jobs.jobfile import read
from jobs.pretrain.config import PretrainJob
from tests.helpers.tiny_jobs import make_data, pretrain_job, write

pytestmark = pytest.mark.slow
ROOM_GIB = 64


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    made = tmp_path_factory.mktemp("before")
    make_data(made)
    return write(made / "job.yaml", pretrain_job(made))


@pytest.fixture(scope="module")
def job(file: str) -> PretrainJob:
    found: PretrainJob = read(Path(file)).resolve(PretrainJob)
    return found


def test_a_run_that_fits_by_far_is_not_counted(job: PretrainJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command.kinds, "planned", lambda *_: pytest.fail("it is counted"))
    monkeypatch.setattr(machine, "memory_bytes", lambda: ROOM_GIB << 30)
    assert not [line for line in command.before_a_run(job) if "per worker" in line]


def test_a_run_that_hardly_fits_is_counted_and_named(
    job: PretrainJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "memory_bytes", lambda: 1 << 20)
    (line, *_) = [line for line in command.before_a_run(job) if "per worker" in line]
    assert "Lower micro_batch_size, or raise zero.stage or fit.workers.min." in line


def test_the_look_loads_neither_transformers_nor_torch_s_compiler(file: str) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from jobs.doctor.command import before_a_run\n"
        "from jobs.jobfile import read\n"
        "from jobs.plan.bound import at_most\n"
        "from jobs.pretrain.config import PretrainJob\n"
        f"job = read(Path({file!r})).resolve(PretrainJob)\n"
        "assert before_a_run(job) == [] and at_most(job, [1])\n"
        "sys.exit(' '.join({'transformers', 'torch._dynamo', 'sympy'} & sys.modules.keys()) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
