#!/usr/bin/env bash
# DeepSpeed 0.19.8: `deepspeed.initialize` imports its Muon optimizer whatever the optimizer is, and that file
# decorates functions with torch.compile: every worker loads Dynamo and Inductor, about a second of CPU and 44 MB,
# though nothing is compiled. What we do: the file is imported beforehand with the decorator switched off.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check deepspeed==0.19.8 torch==2.13.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import os

import torch

os.environ.update(
    RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT="29671", DS_ACCELERATOR="cpu"
)
import deepspeed

deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # or it compiles an op for half a minute

import sys

before = "torch._inductor.compile_fx" in sys.modules
model = torch.nn.Linear(2, 2)
config = {
    "train_micro_batch_size_per_gpu": 1,
    "zero_allow_untested_optimizer": True,
    "zero_optimization": {"stage": 2},
}
deepspeed.initialize(model=model, optimizer=torch.optim.AdamW(model.parameters()), config=config)
after = "torch._inductor.compile_fx" in sys.modules
print(f"deepspeed {deepspeed.__version__}: Inductor is loaded before initialize: {before}, after: {after}")
assert (before, after) == (False, True), "it changed"
PYTHON
