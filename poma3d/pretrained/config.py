"""Which teacher and which captioner, and how they run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from poma3d.counts import Count, CountOrZero
from poma3d.locations import ModelLocation
from poma3d.pretrained.folder import same_revision

CLIP, SIGLIP, FGCLIP, AUTO = "clip", "siglip", "fgclip", "auto"
DTYPES = ("float32", "bfloat16", "float16")
PLACE = "{captions}"
"""Where a summary's prompt takes the captions."""


@dataclass
class TeacherConfig:
    """Where the teacher comes from."""

    KINDS = (AUTO, CLIP, SIGLIP, FGCLIP)
    OWN_METHODS = ("image_tower", "encode_images", "encode_texts", "image_tokens")

    source: ModelLocation = ""
    """Folder with config.json, tokenizer and *.safetensors, or a hub id."""
    revision: str | None = None
    """Commit of a hub id, or the expected revision of a folder. Needed with trust_remote_code."""
    kind: str = AUTO
    """clip, siglip, fgclip, or auto (from config.json); or a teacher of your own as module:Class."""
    trust_remote_code: bool = False
    """Run the Python that comes with FG-CLIP's weights instead of our own reading of them."""
    allow_tensors: list[str] = field(default_factory=list)
    """Patterns (* for anything) of tensors that may be missing in the weights, unexpected, or of another
    shape; any other such tensor is an error. What is missing is drawn at random, for all workers alike."""
    batch_size: Count = 64
    """Images or texts per forward."""
    options: dict[str, Any] | None = None
    """Settings of a teacher of your own: the fields of its Config."""


@dataclass
class CaptionerConfig:
    """Which model writes captions, and how."""

    KINDS = ("transformers",)
    OWN_METHODS = ("describe", "summarise")

    source: ModelLocation = ""
    """Folder with config.json, processor and *.safetensors, a storage URI of one, or a hub id."""
    revision: str | None = None
    """Commit of a hub id, or the expected revision of a folder. Needed with trust_remote_code."""
    trust_remote_code: bool = False
    """Run the Python that comes with the weights, for models that transformers does not know."""
    dtype: str = "float32"
    """Precision of the weights: float32, bfloat16 or float16, whatever they are stored in."""
    allow_tensors: list[str] = field(default_factory=list)
    """Patterns (* for anything) of tensors that may be missing in the weights, unexpected, or of another
    shape; any other such tensor is an error. What is missing is drawn at random, for all workers alike."""
    batch_size: Count = 8
    """Pictures that are described at once; halved for good when memory runs out."""
    prompts: list[str] = field(
        default_factory=lambda: [
            "Describe what this picture shows in one sentence: the objects, and how they stand to each other."
        ]
    )
    """What the model is asked about a view. Each prompt gives its own captions."""
    candidates: Count = 8
    """Captions that are drawn for every prompt; the best of all of them are kept."""
    temperature: float = 0.8
    """Temperature of the draw. 0 takes the likeliest words instead, so each prompt gives one caption."""
    top_p: float = 0.95
    """Share of the likeliest words that are drawn from."""
    max_new_tokens: Count = 64
    """Length of a caption."""
    summary_prompt: str = (
        "These sentences describe views of one room: {captions} "
        "Describe the whole room in two or three sentences, without mentioning views or pictures."
    )
    """What the model is asked about a scene; {captions} is replaced by the best caption of every view."""
    summaries: CountOrZero = 1
    """Captions that a scene gets, drawn likewise."""
    summary_max_new_tokens: Count = 160
    """Length of a scene's caption."""
    seed: int = 0
    """Seed of the draws: the same job on the same machine gives the same captions."""
    kind: str = "transformers"
    """transformers (any of its image-text-to-text models), or a captioner of your own as module:Class."""
    options: dict[str, Any] | None = None
    """Settings of a captioner of your own: the fields of its Config."""

    def validate(self) -> None:
        """Refuse values that cannot be.

        Raises:
            ValueError: naming the field and what to do.
        """
        if self.kind in self.KINDS and not self.source:
            raise ValueError("captioner.source is empty: give a folder with safetensors weights or a hub id")
        if self.trust_remote_code and not self.revision:
            raise ValueError(
                "captioner.trust_remote_code runs code that comes with the weights: pin it with "
                "captioner.revision (the commit that you have read)"
            )
        if self.dtype not in DTYPES:
            raise ValueError(f"captioner.dtype is '{self.dtype}'; use one of {', '.join(DTYPES)}")
        for name in ("batch_size", "candidates", "max_new_tokens", "summaries", "summary_max_new_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"captioner.{name} is {getattr(self, name)}, expected 1 or more")
        if not self.prompts or not all(prompt.strip() for prompt in self.prompts):
            raise ValueError("captioner.prompts needs at least one prompt, and none that is empty")
        if PLACE not in self.summary_prompt:
            raise ValueError(f"captioner.summary_prompt has no {PLACE}, where the views' captions go")
        if self.temperature < 0 or not 0 < self.top_p <= 1:
            raise ValueError("captioner.temperature must be 0 or more and top_p above 0, at most 1")


@dataclass(frozen=True)
class TeacherRecord:
    """Which teacher's embeddings are in the shards."""

    name: str
    revision: str
    embedding: int

    def matches(self, stored: TeacherRecord) -> bool:
        """Whether embeddings of `stored` may be used with this teacher (`same_revision`)."""
        same = (stored.name, stored.embedding) == (self.name, self.embedding)
        return same and same_revision(stored.revision, self.revision)

    def __str__(self) -> str:
        return f"{self.name} at {self.revision} ({self.embedding} wide)"
