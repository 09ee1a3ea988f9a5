"""Which teacher and which captioner, and how they run."""

from __future__ import annotations

from dataclasses import dataclass, field

CLIP, SIGLIP, FGCLIP, AUTO = "clip", "siglip", "fgclip", "auto"


@dataclass
class TeacherConfig:
    """Where the teacher comes from."""

    source: str = ""
    """Folder with config.json, tokenizer and *.safetensors, or a hub id."""
    revision: str | None = None
    """Commit of a hub id, or the expected weight hash of a folder. Needed with trust_remote_code."""
    kind: str = AUTO
    """clip, siglip, fgclip, or auto (from config.json)."""
    trust_remote_code: bool = False
    """Run the Python that comes with FG-CLIP's weights instead of our own reading of them."""
    batch_size: int = 64
    """Images or texts per forward."""


@dataclass
class CaptionerConfig:
    """Which model writes captions, and how."""

    source: str = ""
    """Folder with config.json, processor and *.safetensors, a storage URI of one, or a hub id."""
    revision: str | None = None
    """Commit of a hub id, or the expected weight hash of a folder. Needed with trust_remote_code."""
    trust_remote_code: bool = False
    """Run the Python that comes with the weights, for models that transformers does not know."""
    dtype: str = "auto"
    """Precision of the weights: auto (as stored), float32, bfloat16 or float16."""
    batch_size: int = 8
    """Pictures that are described at once; halved for good when memory runs out."""
    prompts: list[str] = field(
        default_factory=lambda: [
            "Describe what this picture shows in one sentence: the objects, and how they stand to each other."
        ]
    )
    """What the model is asked about a view. Each prompt gives its own captions."""
    candidates: int = 8
    """Captions that are drawn for every prompt; the best of all of them are kept."""
    temperature: float = 0.8
    """Of the draw. 0 takes the likeliest words instead, which leaves one caption for every prompt."""
    top_p: float = 0.95
    """Share of the likeliest words that are drawn from."""
    max_new_tokens: int = 64
    """Length of a caption."""
    summary_prompt: str = (
        "These sentences describe views of one room: {captions} "
        "Describe the whole room in two or three sentences, without mentioning views or pictures."
    )
    """What the model is asked about a scene; {captions} is replaced by the best caption of every view."""
    summaries: int = 1
    """Captions that a scene gets, drawn likewise."""
    summary_max_new_tokens: int = 160
    """Length of a scene's caption."""
    seed: int = 0
    """Of the draws: the same job on the same machine gives the same captions."""
