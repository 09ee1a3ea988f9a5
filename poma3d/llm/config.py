"""The settings of a language model, of its projector, and of the text around a scene."""

from __future__ import annotations

from dataclasses import dataclass, field

from poma3d.counts import Count
from poma3d.locations import ModelLocation
from poma3d.seen.config import SceneTokensConfig

CAUSAL, VISION_LANGUAGE = "causal", "vision_language"
LORA, FULL, PROJECTOR = "lora", "full", "projector"
TOKENS, SAMPLES = "tokens", "samples"
DRAWN, MAIN, FIRST = "drawn", "main", "first"


@dataclass
class AdapterConfig:
    """Low-rank adapters of peft."""

    rank: Count = 16
    """Rank of the adapters."""
    alpha: float = 32.0
    """Adapters are scaled by alpha / rank."""
    dropout: float = 0.0
    """Dropout on the adapters' input. It is drawn per micro-batch, by its place in the global batch: the same
    at any number of workers."""
    targets: list[str] = field(
        default_factory=lambda: [
            "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
        ]
    )  # fmt: skip
    """Names of the linear layers that get one."""


@dataclass
class NewModelConfig:
    """A language model of Qwen3's architecture with new weights, and a tokenizer that is trained from the
    conversations."""

    vocabulary: Count = 2048
    """Tokens of the tokenizer at most: pieces of bytes, so that every text has some."""
    width: Count = 256
    """Width of a token."""
    layers: Count = 8
    """Blocks."""
    heads: Count = 4
    """Attention heads; keys and values have as many."""
    mlp_width: Count = 1024
    """Width of the gated layer of a block."""
    max_tokens: Count = 2048
    """Longest row, scene tokens included."""


@dataclass
class LlmConfig:
    """The language model, and what of it is trained."""

    MODELS = (CAUSAL, VISION_LANGUAGE)
    TUNINGS = (LORA, FULL, PROJECTOR)
    LOSSES = (TOKENS, SAMPLES)

    source: ModelLocation = ""
    """Folder with config.json, tokenizer and *.safetensors, or a hub id; empty with `new`."""
    revision: str | None = None
    """Commit of a hub id, or the expected revision of a folder. Needed with trust_remote_code."""
    trust_remote_code: bool = False
    """Run the Python that comes with the weights, for models that transformers does not know."""
    allow_tensors: list[str] = field(default_factory=list)
    """Patterns (* for anything) of tensors that may be missing in the weights, unexpected, or of another
    shape; any other such tensor is an error."""
    model: str = CAUSAL
    """causal: AutoModelForCausalLM. vision_language: the language model of AutoModelForImageTextToText
    (Qwen3-VL, LLaVA-OneVision and their like); its image tower is dropped."""
    new: NewModelConfig | None = None
    """A model with new weights in place of `source`; tune must be full."""
    tune: str = LORA
    """lora: adapters. full: every weight. projector: the model stays as it is, and the projector alone
    learns. The projector is trained in any case."""
    lora: AdapterConfig = field(default_factory=AdapterConfig)
    """Of tune lora."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, a third more time."""
    loss: str = TOKENS
    """tokens: the mean over all answer tokens of the global batch, so long answers weigh more. samples: the
    mean over conversations of each one's mean."""

    def validate(self) -> None:
        """Refuse values that cannot be.

        Raises:
            ValueError: naming the field and what to do.
        """
        for name, known in (("model", self.MODELS), ("tune", self.TUNINGS), ("loss", self.LOSSES)):
            if getattr(self, name) not in known:
                raise ValueError(f"llm.{name} is '{getattr(self, name)}'; use one of {', '.join(known)}")
        if bool(self.source) == (self.new is not None):
            raise ValueError("give one of llm.source (a folder or a hub id) and llm.new (new weights)")
        if self.new is not None and self.tune != FULL:
            raise ValueError(f"llm.new has new weights and llm.tune is {self.tune}: use llm.tune=full")
        if self.new is not None and self.new.width % self.new.heads:
            raise ValueError(
                f"llm.new.width {self.new.width} is not divisible by llm.new.heads {self.new.heads}"
            )
        if self.trust_remote_code and not self.revision:
            raise ValueError(
                "llm.trust_remote_code runs code that comes with the weights: pin it with llm.revision "
                "(the commit that you have read)"
            )
        if not 0 <= self.lora.dropout < 1 or not self.lora.targets:
            raise ValueError(
                f"llm.lora.dropout {self.lora.dropout} must be in [0, 1), and llm.lora.targets not empty"
            )


@dataclass
class LlmSceneConfig(SceneTokensConfig):
    """What the language model gets of a scene, and the projector that brings it to the model's width."""

    projector_width: Count | None = None
    """Width of the projector's hidden layer; that of the language model when empty."""
    projector_lr: float | None = None
    """Peak learning rate of the projector, in place of that of the language model."""

    def validate(self) -> None:
        """Refuse values that cannot be.

        Raises:
            ValueError: naming the field and what to do.
        """
        super().validate()
        if self.projector_lr is not None and not self.projector_lr > 0:
            raise ValueError(f"scene.projector_lr is {self.projector_lr}, expected above 0")


@dataclass
class ChatConfig:
    """The text around a scene, and what of a conversation is drawn."""

    SITUATIONS = (DRAWN, MAIN)
    ANSWERS = (DRAWN, FIRST)

    system: str | None = None
    """What the model is told first; its template's own words when empty."""
    text_joiner: str = " "
    """What stands between situation and question."""
    thinking: bool = False
    """Whether templates that know of it let the model think before it answers."""
    max_text_tokens: Count = 256
    """Longest situation and question; of longer ones the beginning is cut, and they are counted."""
    max_answer_tokens: Count = 64
    """Longest answer; of longer ones the end is cut, and they are counted."""
    situations: str = DRAWN
    """Of a question with several: drawn takes one per epoch in training, main the first."""
    answers: str = DRAWN
    """Of a question with several: drawn takes one per epoch in training, first the first."""
    packed_tokens: Count | None = None
    """Length of the rows in which conversations of a micro-batch are packed one after the other, each seeing
    itself alone; one conversation a row when empty."""

    def validate(self) -> None:
        """Refuse values that cannot be.

        Raises:
            ValueError: naming the field and what to do.
        """
        for name, known in (("situations", self.SITUATIONS), ("answers", self.ANSWERS)):
            if getattr(self, name) not in known:
                raise ValueError(f"chat.{name} is '{getattr(self, name)}'; use one of {', '.join(known)}")
