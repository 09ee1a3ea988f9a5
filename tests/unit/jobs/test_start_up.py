"""What reading a job file loads: the schemas of all commands, without the heavy libraries."""

from __future__ import annotations

import subprocess
import sys

from jobs.ingest.config import READERS, ReaderConfig
from jobs.lift.config import LifterConfig
from poma3d.lift.lifter import Lifter
from poma3d.pretrained.captioner import Captioner
from poma3d.pretrained.config import CaptionerConfig, TeacherConfig
from poma3d.pretrained.teacher import Teacher
from poma3d.scenes.frame import Reader

HEAVY = {"torch", "ray", "deepspeed", "transformers", "matplotlib", "PIL", "pyarrow", "numpy"}


def test_schemas_load_no_heavy_library() -> None:
    code = (
        "import sys\n"
        "from jobs.jobfile import SCHEMAS, open_schema\n"
        "[open_schema(kind) for kind in SCHEMAS]\n"
        f"sys.exit(' '.join(sorted({HEAVY} & sys.modules.keys())) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_own_classes_have_the_methods_of_the_protocols() -> None:
    """The schemas name them as text, because the protocols' modules load numpy and torch."""
    for section, protocol in ((ReaderConfig, Reader), (LifterConfig, Lifter)):
        methods = {name for name, value in vars(protocol).items() if callable(value) and name[0] != "_"}
        assert set(section.OWN_METHODS) == methods
    for section, model in ((CaptionerConfig, Captioner), (TeacherConfig, Teacher)):
        assert all(callable(getattr(model, name)) for name in section.OWN_METHODS)


def test_built_in_readers_exist() -> None:
    from importlib import import_module

    for name in READERS.values():
        module, _, reader = name.partition(":")
        assert set(ReaderConfig.OWN_METHODS) <= set(dir(getattr(import_module(module), reader)))


def test_a_driver_loads_nothing_of_training() -> None:
    """It resolves the job and sends it to workers: what they alone need costs seconds to load."""
    code = (
        "import sys\n"
        "import jobs.pretrain.command, jobs.pretrain.launch, plinth.launch.ray_train\n"
        "loaded = {'deepspeed', 'torch.distributed.checkpoint', 'plinth.train.loop'} & sys.modules.keys()\n"
        "sys.exit(' '.join(sorted(loaded)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_controller_of_a_run_loads_no_torch() -> None:
    """What Ray Train's controller unpickles: the backend, the scaling policy, the callback."""
    code = (
        "import sys\n"
        "import plinth.launch.lost_ranks, plinth.launch.scaling_policy, plinth.launch.torch_backend\n"
        "sys.exit('torch' if 'torch' in sys.modules else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
