"""What a step of a language model or a head is said to cost is what torch counts in a real one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from poma3d.cost.step import size_of, step_cost
from poma3d.cost.torch_internals import flop_counter
from poma3d.heads.config import TextConfig
from poma3d.heads.text import outline_tower
from poma3d.inputs import Batch
from poma3d.llm.config import FULL, LORA, PROJECTOR, AdapterConfig, LlmConfig
from poma3d.llm.model import blocks_of, load_llm, outline_llm
from poma3d.llm.stage import ConversationStage
from poma3d.network.vit import Block
from tests.helpers.downstream import heads, llm

ROWS = 2
BLOCKS = "blocks"


def on_meta(stage: ConversationStage) -> ConversationStage:
    """The same without its weights."""
    return stage.to("meta")


def prepared(stage: ConversationStage) -> Batch:
    """Conversations of two lengths: where none is padded, torch's attention takes another way."""
    batch = stage.fake_batch(ROWS)
    batch["prompt_count"][:], batch["answer_count"][:] = llm.SHAPE.prompt_tokens, llm.SHAPE.answer_tokens
    batch["prompt_count"][0] = 1
    return stage.prepare(batch)


def counted(stage: nn.Module, batch: Batch) -> tuple[float, float, int]:
    """Operations forward and backward, and bytes that autograd keeps, of a real step."""
    weights = {p.untyped_storage().data_ptr() for p in (*stage.parameters(), *stage.buffers())}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with flop_counter() as counter:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            (loss,) = stage(batch).sums.values()
        forward = counter.get_total_flops()
        loss.backward()
    return (
        forward,
        counter.get_total_flops() - forward,
        sum(t.untyped_storage().nbytes() for t in kept.values()),
    )


@pytest.mark.parametrize(
    ("kind", "tune", "trained"),
    [(llm.QWEN3, LORA, False), (llm.QWEN3_VL, LORA, True), (llm.ONEVISION, FULL, False)],
)
def test_operations_and_activations_are_those_of_a_real_step(kind: str, tune: str, trained: bool) -> None:
    real, twin = (llm.stage(kind, tune, trained=trained).train() for _ in range(2))
    batch = prepared(real)
    cost = step_cost(on_meta(twin), batch, {BLOCKS: blocks_of(twin.llm)})
    forward, backward, kept = counted(real, batch)
    assert (cost.forward, cost.backward) == (forward, backward)
    assert cost.kept([]) == cost.saved == pytest.approx(kept, rel=0.02)
    assert not cost.unused


def test_blocks_that_are_computed_again_cost_a_forward_and_keep_what_enters_them() -> None:
    plain = llm.stage(tune=FULL).train()
    batch = prepared(plain)
    cost = step_cost(on_meta(plain), batch, {BLOCKS: blocks_of(plain.llm)})
    again = llm.stage(tune=FULL, checkpointing=True).train()
    forward, backward, _ = counted(again, batch)
    assert forward == cost.forward
    most = cost.backward + cost.again([BLOCKS])
    assert cost.backward < backward <= most, "torch stops at the last tensor that it needs"
    rows, length, width = *batch["layout/ids"].shape, 32
    blocks = cost.blocks[BLOCKS]
    assert len(blocks.inside) == 2
    assert blocks.inputs == 2 * rows * length * width * 4
    assert cost.kept([BLOCKS]) == cost.saved - sum(blocks.inside) + blocks.inputs + max(blocks.inside)


def test_activations_of_a_sample_are_a_share_of_the_batch() -> None:
    stage = llm.stage().train()
    cost = step_cost(on_meta(stage), prepared(stage), {})
    (one, both) = (cost.activations(n, []).of(n) for n in (1, ROWS))
    assert both == pytest.approx(one, abs=3 * ROWS), "rounded up"
    assert one == cost.saved + cost.inputs + cost.working


@pytest.mark.parametrize("tune", [LORA, FULL, PROJECTOR])
@pytest.mark.parametrize("kind", [llm.QWEN3, llm.QWEN3_VL, llm.ONEVISION])
def test_an_outline_has_the_parameters_of_the_model(kind: str, tune: str, tmp_path: Any) -> None:
    folder = llm.write_model(tmp_path / "model", kind)
    config = LlmConfig(str(folder), model=llm.MODEL_OF[kind], tune=tune, lora=AdapterConfig(rank=2))
    real = load_llm(config, None, seed=0)
    outlined = outline_llm(config, llm.network(kind).config, None)
    sizes = [
        {name: (tuple(p.shape), p.requires_grad) for name, p in model.named_parameters()}
        for model in (real, outlined)
    ]
    assert sizes[0] == sizes[1]
    assert all(p.is_meta for p in outlined.parameters())
    assert len(blocks_of(outlined)) == 2


def test_parts_of_a_head_and_what_no_answer_depends_on() -> None:
    real = heads.stage(dropout=0.0).train()
    assert real.tower is not None
    twin = heads.stage(dropout=0.0)
    twin.tower = outline_tower(TextConfig(source="x"), real.tower.model.config)
    batch = real.prepare(real.fake_batch(ROWS))
    cost = step_cost(twin.train(), batch, {})
    forward, backward, _ = counted(real, batch)
    assert (cost.forward, cost.backward) == (forward, backward)
    frozen = {f"tower.{n}" for n, p in real.tower.named_parameters() if not p.requires_grad}
    assert cost.unused == frozen
    for part, size in size_of(twin, cost.unused).items():
        parameters = list(real.get_submodule(part).parameters())
        assert size.parameters == sum(p.numel() for p in parameters)
        assert size.trainable == sum(p.numel() for p in parameters if p.requires_grad)


def test_blocks_of_a_trained_encoder_are_told_apart() -> None:
    stage = llm.stage(trained=True).train()
    assert stage.encoder is not None
    blocks = {
        "llm": blocks_of(stage.llm),
        "encoder": [each for each in stage.encoder.modules() if isinstance(each, Block)],
    }
    batch = prepared(stage)
    cost = step_cost(on_meta(stage), batch, blocks)
    assert all(each.forward > 0 and each.inputs > 0 and min(each.inside) > 0 for each in cost.blocks.values())
    assert cost.kept(["llm"]) > cost.kept(["llm", "encoder"])
