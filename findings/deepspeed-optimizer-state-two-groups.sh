#!/usr/bin/env bash
# DeepSpeed 0.19.8, ZeRO 1 and 2: with two parameter groups, `safe_get_full_optimizer_state` finds the moments of
# the first group only. What we do: each rank's part of the moments is read by the parameter's place in its group.
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

from deepspeed.utils import safe_get_full_optimizer_state

model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
optimizer = torch.optim.AdamW([{"params": layer.parameters()} for layer in model])
config = {
    "train_micro_batch_size_per_gpu": 1,
    "zero_allow_untested_optimizer": True,
    "zero_optimization": {"stage": 2},
}
engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
engine.backward(engine(torch.ones(1, 2)).sum())
engine.step()
seen = {}
for name, parameter in model.named_parameters():
    try:
        seen[name] = list(safe_get_full_optimizer_state(parameter, "exp_avg").shape)
    except ValueError as error:
        seen[name] = str(error)
    print(f"deepspeed {deepspeed.__version__}: exp_avg of {name}: {seen[name]}")
missing = "exp_avg not found in optimizer state fragment"
assert seen == {"0.weight": [2, 2], "0.bias": [2], "1.weight": missing, "1.bias": missing}, "it changed"
PYTHON
