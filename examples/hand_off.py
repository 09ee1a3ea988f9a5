"""An exported model in other people's code: torch, transformers and this package's wheel, nothing else.

    poma export @export run=runs/rooms output=encoder --format transformers
    python examples/hand_off.py encoder SCAN [TEXT TEACHER]

SCAN holds depth maps (*.depth.png, 16 bit, millimetres), a pose for each (*.pose.txt, camera -> world) and
camera-intrinsics.txt, as 7-Scenes layouts do. With a TEXT, and the folder or hub id of the TEACHER that the
encoder learnt from, the views are ranked by it. An exported language model answers TEXT.
"""

import sys
from pathlib import Path

try:
    import numpy as np
    import torch
    from PIL import Image
    from transformers import AutoModel, AutoProcessor

    import poma3d.auto  # noqa: F401 - registers the classes with transformers
except ModuleNotFoundError as error:
    sys.exit(f"{error.name} is not installed here: install the wheel, as docs/hand-off.md says")

if len(sys.argv) < 3:
    sys.exit("give the exported model and a scan: python examples/hand_off.py MODEL SCAN [TEXT TEACHER]")
folder, scan, *query = sys.argv[1:]
names = sorted(path.name.removesuffix(".depth.png") for path in Path(scan).glob("*.depth.png"))
if Path(folder).is_dir() and not Path(folder, "config.json").is_file():  # no folder: a name on the hub
    sys.exit(f"{folder} holds no model: give the output of `poma export --format transformers`")
if not names:
    sys.exit(f"{scan} holds no scan: give a folder with *.depth.png, *.pose.txt, camera-intrinsics.txt")
try:
    model, processor = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    depth = [np.asarray(Image.open(f"{scan}/{name}.depth.png")).astype(np.uint16) for name in names]
    poses = np.stack([np.loadtxt(f"{scan}/{name}.pose.txt") for name in names])
    recorded = (depth, np.loadtxt(f"{scan}/camera-intrinsics.txt"), poses)
    with torch.inference_mode():
        if model.can_generate():  # a language model
            inputs = processor(query or "What do you see?", *recorded)
            print("answer", *processor.answers(model.generate(**inputs)))
        else:
            views = model(**processor(*recorded))
            print("features", *views.features.shape, "tokens", *views.tokens.shape)
            if len(query) == 1 and not model.config.origin.teacher_source:
                sys.exit(f"name the TEACHER, too, that turns a TEXT into features: {scan} TEXT TEACHER")
            if query:
                best = model.rank(views, query[0], teacher=query[1] if query[1:] else None).views[0]
                print("best views", *best.tolist())
except (OSError, ValueError) as error:  # what cannot be used, in the library's words
    sys.exit(" ".join(str(error).split()))
