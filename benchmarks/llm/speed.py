"""Tokens a second of fine-tuning beside a bare loop of peft and DeepSpeed.

    python -m benchmarks.llm speed [--stages 2 3] [--rounds 7] [--steps 4] [--gpu] [--precision bf16]

Both train the same language model of Qwen3's class with new weights, the same adapters and projector, on the
same batches of conversations about scenes, at the same ZeRO stage; tokens are text, scene and answer.

    platform    the engine's step from rows as they are stored: what is drawn, the layout of rows, the loss
                over the global batch, exact sums (fp32), the norm, all numbers told
    bare        `get_peft_model`, `deepspeed.initialize`, and for each micro-batch, laid out before in memory:
                embed, put the scene in, `model(inputs_embeds, attention_mask, labels)`, backward, step
    lean        the same, but the head scores the places of the answer alone, as the platform's does

Transformers' own loss scores every place of a row, so the ratio beside `bare` depends on the vocabulary;
`lean` does what the platform does to the model, and no more. Rounds alternate, as `benchmarks.llm.rounds`
says. One process.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.llm.rounds import alternated, ratio_cells
from plinth.engine import process
from plinth.engine.config import OptimConfig, Precision, ZeroConfig
from plinth.engine.engine import Engine, EngineConfig
from plinth.engine.global_batch import split, to_device
from plinth.engine.process import Process, prepare_deepspeed, without_prints
from plinth.engine.zero_config import deepspeed_config
from poma3d.llm.config import LORA, AdapterConfig, ChatConfig, LlmConfig, LlmSceneConfig
from poma3d.llm.conversations import ConversationShape
from poma3d.llm.layout import PREFIX
from poma3d.llm.model import IGNORED, prepared, width_of
from poma3d.llm.stage import ConversationStage
from poma3d.seen.config import VIEWS
from poma3d.seen.scenes import SeenScenes

SCENE_VIEWS, EMBEDDING = 64, 512
"""Scene tokens of a conversation, and their width."""
SHAPE = ConversationShape(prompts=1, prompt_tokens=48, answers=1, answer_tokens=8)
SEED, TOTAL_STEPS = 0, 10_000
PLATFORM, BARE, LEAN = "platform", "bare", "lean"
OPTIM = OptimConfig(lr=1e-4, warmup_steps=1, grad_clip=1.0)


@dataclass(frozen=True)
class Sizes:
    """Of the language model and its batches."""

    width: int
    layers: int
    vocabulary: int
    global_batch: int
    micro_batch: int


def main(words: Sequence[str]) -> None:
    """Measure both at each stage and print a table."""
    parser = argparse.ArgumentParser(prog="benchmarks.llm speed", description=__doc__.splitlines()[0])
    parser.add_argument("--stages", type=int, nargs="+", default=[2, 3])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=4, help="of each in a round")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--batch", type=int, default=8, help="conversations of a step")
    parser.add_argument("--micro-batch", type=int, default=4)
    parser.add_argument("--precision", default="fp32", choices=[each.value for each in Precision])
    parser.add_argument("--gpu", action="store_true")
    arguments = parser.parse_args(words)
    sizes = Sizes(
        arguments.width, arguments.layers, arguments.vocabulary, arguments.batch, arguments.micro_batch
    )
    own = process.start(threads=arguments.threads, use_gpu=arguments.gpu)
    print("| ZeRO | platform, tokens/s | beside | tokens/s | ratio (rounds) | CPU ratio |")
    print("|---|---|---|---|---|---|")
    for stage in arguments.stages:
        zero = ZeroConfig(stage=stage, precision=Precision(arguments.precision))
        print("\n".join(_rows(sizes, zero, own, arguments.rounds, arguments.steps)), flush=True)


def _rows(sizes: Sizes, zero: ZeroConfig, own: Process, rounds: int, steps: int) -> Iterator[str]:
    batches = [model(sizes).fake_batch(sizes.global_batch, seed) for seed in range(steps)]
    tokens = sum(_tokens(sizes, batch) for batch in batches)
    engine, step = platform(sizes, zero, own)
    others = {name: bare(sizes, zero, own, batches, name == LEAN) for name in (BARE, LEAN)}
    arms: dict[str, Callable[[], Any]] = {PLATFORM: lambda: [step(batch) for batch in batches], **others}
    found = alternated(arms, rounds, own.device.type == "cuda")
    engine.close()
    for name in others:
        ours, theirs = (f"{tokens / found[arm].median_s:,.0f}" for arm in (PLATFORM, name))
        yield f"| {zero.stage} | {ours} | {name} | {theirs} | {ratio_cells(found[PLATFORM], found[name])} |"


def platform(sizes: Sizes, zero: ZeroConfig, own: Process) -> tuple[Engine, Callable[[dict[str, Any]], Any]]:
    """The engine, and its step."""
    config = EngineConfig(OPTIM, zero, sizes.global_batch, sizes.micro_batch, TOTAL_STEPS, SEED)
    engine = Engine(model(sizes), config, own)
    return engine, engine.step


def bare(
    sizes: Sizes, zero: ZeroConfig, own: Process, batches: Sequence[dict[str, Any]], lean: bool
) -> Callable[[], Any]:
    """A loop that trains on all batches."""
    from peft import LoraConfig, get_peft_model

    prepare_deepspeed()
    import deepspeed

    llm: Any = get_peft_model(
        _llm(sizes),
        LoraConfig(r=16, lora_alpha=32.0, lora_dropout=0.0, target_modules=AdapterConfig().targets),
    )
    trained_llm = _Bare(llm, _projector(width_of(llm)), lean)
    trained = [p for p in trained_llm.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=OPTIM.lr, betas=(OPTIM.beta1, OPTIM.beta2), weight_decay=0.01)
    passes = sizes.global_batch // sizes.micro_batch
    with without_prints():
        engine, *_ = deepspeed.initialize(
            model=trained_llm,
            optimizer=optimizer,
            config=deepspeed_config(zero, OPTIM, sizes.micro_batch, passes),
        )
    stage = model(sizes)
    laid = [to_device(_collated(stage, m), own.device) for b in batches for m in split(b, sizes.micro_batch)]

    def train() -> None:
        for batch in laid:
            loss = engine(**batch)
            engine.backward(loss)
            engine.step()

    return train


class _Bare(nn.Module):
    """A language model of transformers with a projector before it."""

    def __init__(self, llm: nn.Module, projector: nn.Module, lean: bool = False) -> None:
        super().__init__()
        self.llm, self.projector, self.lean = llm, projector, lean

    def forward(
        self, ids: Tensor, mask: Tensor, labels: Tensor, views: Tensor, scene_at: Tensor, label_at: Tensor
    ) -> Tensor:
        embed: nn.Module = self.llm.get_input_embeddings()  # type: ignore[operator]
        embeds = embed(ids)
        scene = self.projector(views.to(embeds.dtype)).flatten(0, 1).to(embeds.dtype)
        placed = embeds.flatten(0, 1).index_copy(0, scene_at, scene).view(embeds.shape)
        if not self.lean:
            loss: Tensor = self.llm(inputs_embeds=placed, attention_mask=mask, labels=labels).loss
            return loss
        llm: Any = self.llm
        base = llm.get_base_model() if hasattr(llm, "get_base_model") else llm
        features = base.model(inputs_embeds=placed, attention_mask=mask).last_hidden_state
        logits = base.lm_head(features.flatten(0, 1)[label_at]).float()
        return nn.functional.cross_entropy(logits, labels.flatten()[label_at + 1])


def _collated(stage: ConversationStage, batch: dict[str, Any]) -> dict[str, Tensor]:
    """A micro-batch as a bare loop has it from its loader."""
    made = stage.train().prepare(batch)
    labels = torch.full_like(made[f"{PREFIX}ids"], IGNORED)
    labels.view(-1)[made[f"{PREFIX}label_at"] + 1] = made[f"{PREFIX}labels"]
    return {
        "ids": made[f"{PREFIX}ids"],
        "mask": (made[f"{PREFIX}sample"] >= 0).long(),
        "labels": labels,
        "views": made["views"],
        "scene_at": made[f"{PREFIX}scene_at"],
        "label_at": made[f"{PREFIX}label_at"],
    }


def model(sizes: Sizes, tune: str = LORA) -> ConversationStage:
    """A language model with new weights that reads the features of scenes."""
    config = LlmConfig("x", tune=tune, lora=AdapterConfig(rank=16, alpha=32.0))
    seen = SeenScenes(LlmSceneConfig(tokens=VIEWS), None, SCENE_VIEWS, EMBEDDING)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        llm = prepared(_llm(sizes), config)
    return ConversationStage(llm, ChatConfig(), seen, SHAPE, SEED, config.loss)


def _llm(sizes: Sizes) -> nn.Module:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(SEED)
    config = Qwen3Config(
        vocab_size=sizes.vocabulary, hidden_size=sizes.width, intermediate_size=3 * sizes.width,
        num_hidden_layers=sizes.layers, num_attention_heads=8, num_key_value_heads=8,
        head_dim=sizes.width // 8, max_position_embeddings=512,
    )  # fmt: skip
    return Qwen3ForCausalLM(config)


def _projector(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(EMBEDDING, width), nn.GELU(), nn.Linear(width, width))


def _tokens(sizes: Sizes, batch: dict[str, Any]) -> int:
    stage = model(sizes).train()
    return sum(int((stage.prepare(m)[f"{PREFIX}sample"] >= 0).sum()) for m in split(batch, sizes.micro_batch))
