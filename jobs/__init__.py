"""Entry points: where model and platform meet."""

import sys
from importlib.util import find_spec

if find_spec("omegaconf") is None:  # the wheel without extras has the model alone
    print(
        "poma needs the platform's packages, which are not installed: "
        "pip install 'poma3d-platform[platform]'. "
        "To load an exported encoder: import poma3d.auto, or poma3d.export.",
        file=sys.stderr,
    )
    raise SystemExit(2)
