"""Writes the lock files of the images: `python -m infra.docker.lock`.

Run it after a change of pyproject.toml or requirements.in and commit what changes. Three files, every line
with the hashes of what may be installed:

    requirements-cuda.lock   everything, with the CUDA build of torch that the package index holds
    requirements-cpu.lock    the same without torch and what only its CUDA build needs; the CPU image takes
                             torch from PyTorch's own index, by version
    requirements-build.lock  what is built from source against all that, so installed after it: DeepSpeed
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ENVIRONMENT = ROOT / ".venv-lock"
UV = "uv==0.13.9"
PYTHON_VERSION = "3.11"
PLATFORM = "x86_64-manylinux_2_28"
CUDA_ONLY = ("triton", "nvidia-", "cuda-")
"""Names and beginnings of names of what the CPU build of torch does without."""
EXTRA = "platform"
"""What the images have besides the model's own requirements."""
FROM_SOURCE = ("deepspeed",)
LOCKS = {name: HERE / f"requirements-{name}.lock" for name in ("cuda", "cpu", "build")}


def main() -> int:
    """Resolve once, write the files; returns the exit code."""
    if not (ENVIRONMENT / "bin" / "uv").is_file():
        venv.create(ENVIRONMENT, clear=True, with_pip=True)
        pip = [str(ENVIRONMENT / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", UV]
        subprocess.run(pip, check=True)
    uv = [
        str(ENVIRONMENT / "bin" / "uv"), "pip", "compile", "pyproject.toml", str(HERE / "requirements.in"),
        "--extra", EXTRA,
        "--python-version", PYTHON_VERSION, "--python-platform", PLATFORM, "--generate-hashes",
        "--no-header", "--no-annotate", "--quiet",
    ]  # fmt: skip
    locked = subprocess.run(uv, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    found = entries(locked)
    ready = [e for e in found if name_of(e) not in FROM_SOURCE]
    LOCKS["build"].write_text("".join(e for e in found if name_of(e) in FROM_SOURCE))
    LOCKS["cuda"].write_text("".join(ready))
    LOCKS["cpu"].write_text("".join(e for e in ready if not _is_cuda(e)))
    print(f"wrote {', '.join(path.name for path in LOCKS.values())}")
    return 0


def entries(locked: str) -> list[str]:
    """The requirements of a lock file, each with its lines of hashes."""
    found: list[str] = []
    for line in locked.splitlines(keepends=True):
        if line[:1].isspace():
            found[-1] += line
        else:
            found.append(line)
    return found


def name_of(entry: str) -> str:
    """The package of a requirement such as `torch==2.13.0 ...`."""
    return entry.split("==")[0].split("[")[0].strip()


def _is_cuda(entry: str) -> bool:
    return name_of(entry) == "torch" or name_of(entry).startswith(CUDA_ONLY)


if __name__ == "__main__":
    sys.exit(main())
