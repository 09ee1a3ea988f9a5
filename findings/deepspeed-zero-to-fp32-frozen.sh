#!/usr/bin/env bash
# DeepSpeed 0.19.8: `zero_to_fp32` of a ZeRO 1 checkpoint leaves out the frozen parameters without a word; of a
# ZeRO 2 or 3 checkpoint it has them. Who fine-tunes a part of a model at stage 1 gets half a model.
# What we do: a checkpoint holds every tensor by its name, frozen ones too, at every stage.
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

from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

seen = {}
for stage in (1, 2, 3):
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    model[0].requires_grad_(False)
    config = {
    "train_micro_batch_size_per_gpu": 1,
    "zero_allow_untested_optimizer": True,
    "zero_optimization": {"stage": stage},
}
    optimizer = torch.optim.AdamW(model[1].parameters())
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
    engine.backward(engine(torch.ones(1, 2)).sum())
    engine.step()
    engine.save_checkpoint(f"stage{stage}")
    seen[stage] = sorted(get_fp32_state_dict_from_zero_checkpoint(f"stage{stage}"))
for stage, names in seen.items():
    print(f"deepspeed {deepspeed.__version__}, stage {stage}: {names}")
trained, everything = ["1.bias", "1.weight"], ["0.bias", "0.weight", "1.bias", "1.weight"]
assert seen == {1: trained, 2: everything, 3: everything}, "it changed"
PYTHON
