"""An exported model in other people's code: torch, transformers and this package's wheel, nothing else.

    poma export @export run=runs/rooms output=encoder --format transformers
    python examples/hand_off.py encoder SCAN [TEXT TEACHER]

SCAN holds depth maps (*.depth.png, 16 bit, millimetres), a pose for each (*.pose.txt, camera -> world) and
camera-intrinsics.txt, as 7-Scenes layouts do. With a TEXT, and the folder or hub id of the TEACHER that the
encoder learnt from, the views are ranked by it. An exported language model answers TEXT.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import AutoModel, AutoProcessor

import poma3d.auto  # noqa: F401 - registers the classes with transformers

folder, scan, *query = sys.argv[1:]
model, processor = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
names = sorted(path.name.removesuffix(".depth.png") for path in Path(scan).glob("*.depth.png"))
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
        if query:
            print("best views", *model.rank(views, query[0], teacher=query[1]).views[0].tolist())
