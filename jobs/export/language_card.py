"""The model card of a language model that answers from scenes, filled from its run."""

from __future__ import annotations

from collections.abc import Iterator

from huggingface_hub import ModelCardData

from jobs.export.card import (
    LIBRARY,
    PAPER,
    code,
    configuration_section,
    data_section,
    evaluations_section,
    fenced,
    table,
)
from jobs.export.facts import NOT_STATED
from jobs.export.language_facts import LlmFacts
from jobs.runs.started import DISTRIBUTION
from plinth.redaction import printable

TASK, PEFT = "text-generation", "peft"
TAGS = ("poma3d", "3d", "point-maps", "scene-understanding", "3d-question-answering")
BLIND_TAGS = ("poma3d", "question-answering")
USE_MERGED = """\
from transformers import AutoModelForCausalLM, AutoProcessor
import poma3d.auto  # registers the classes; no code from this folder is run

model = AutoModelForCausalLM.from_pretrained("FOLDER")
processor = AutoProcessor.from_pretrained("FOLDER")
SCAN
print(processor.answers(model.generate(**inputs)))"""
USE_SEPARATE = """\
from transformers import AutoProcessor, CLASS
import poma3d.auto

base = CLASS.from_pretrained("BASE")  # the base model named below, at its revision
model = poma3d.auto.join(base, "FOLDER")  # needs peft
processor = AutoProcessor.from_pretrained("FOLDER")
SCAN
print(processor.answers(model.generate(**inputs)))"""
SCAN = """\
# one scan: depth [V, h, w] mm or m, intrinsics [3, 3], poses [V, 4, 4] camera -> world
inputs = processor("how many chairs are there?", depth, intrinsics, poses)"""
BLIND = 'inputs = processor("how many chairs are there?")'
CLASSES = {"causal": "AutoModelForCausalLM", "vision_language": "AutoModelForImageTextToText"}


def render(facts: LlmFacts) -> str:
    """The card's Markdown, with its front matter in YAML."""
    return "\n".join(["---", front_matter(facts), "---", "", *_body(facts)]) + "\n"


def front_matter(facts: LlmFacts) -> str:
    """What the hub reads, as YAML."""
    data = ModelCardData(
        license=facts.license,
        library_name=PEFT if facts.separate else LIBRARY,
        pipeline_tag=TASK,
        tags=list(BLIND_TAGS if facts.encoder is None else TAGS),
        base_model=facts.base if facts.is_hub else None,
        model_name=printable(facts.name),
    )
    return data.to_yaml().strip("\n")


def _body(facts: LlmFacts) -> Iterator[str]:
    yield f"# {code(facts.name)}"
    yield ""
    what = f"A language model, {code(facts.base)}," if facts.has_base else "A language model of new weights"
    if facts.encoder is None:
        yield (
            f"{what} that answers questions in words alone: it sees no scene (`scene.tokens: none`). It is a "
            "control, for what questions give away without the scene that they were asked about."
        )
    else:
        yield (
            f"{what} that answers questions about 3D scenes. It reads, through a projector, the tokens of an "
            f"encoder trained with [POMA-3D]({PAPER})'s objectives, which sees geometry alone, no colour."
        )
    yield from ("", "## Use", "")
    yield f"Install the package `{DISTRIBUTION}` (or its wheel); neither Ray nor DeepSpeed is needed."
    use = USE_SEPARATE.replace("CLASS", CLASSES[facts.llm_class]) if facts.separate else USE_MERGED
    use = use.replace("SCAN", BLIND if facts.encoder is None else SCAN)
    yield from ("", *fenced(use, "python"), "")
    if facts.separate:
        yield (
            "Adapters, encoder and projector lie apart here; the language model is not included. The "
            'adapters alone: `peft.PeftModel.from_pretrained(base, "FOLDER")`.'
        )
    else:
        folded = "Adapters are folded into the weights. " if facts.lora else ""
        yield (
            f"{folded}`generate` takes what transformers' takes, and returns the answers' tokens alone; its "
            "defaults (greedy, length, ends) are in `generation_config.json`."
        )
    yield from ("", "## Model", "", *table(["", ""], list(_model(facts))))
    yield from ("", "## Training data", "", *data_section(facts))
    yield from ("", "## Metrics", "", *_metrics(facts), "")
    if facts.evaluations:
        yield from evaluations_section(facts)
    else:
        yield "Scores of answers (`poma generate`, `poma score`) are not kept beside a run: add them here."
    yield from ("", "## Configuration", "", *configuration_section(facts))
    yield from ("", "## Hashes and versions", "")
    yield from table(
        ["", ""], [[name, code(found)] for name, found in (facts.hashes | facts.software).items()]
    )
    yield from ("", "## Licences", "")
    origins = (("language model", facts.has_base), ("encoder", facts.encoder is not None))
    start = " and ".join(f"the {part}" for part, there in origins if there)
    start = f"start from {start} above and " if start else ""
    yield (
        f"Of these weights: {code(facts.license) if facts.license else NOT_STATED}. They {start}have learnt "
        "from the data above: their licences may bind "
        f'you, too. Where one is "{NOT_STATED}", nobody who exported this has said it; that is no permission.'
    )


def _model(facts: LlmFacts) -> Iterator[list[str]]:
    yield ["run", code(facts.run)]
    if facts.has_base:
        yield ["base model", f"{code(facts.base)}, revision {code(facts.base_revision)}"]
    else:
        yield ["base model", "none: trained from new weights"]
    yield ["class", code(CLASSES[facts.llm_class])]
    yield ["tuned", code(facts.tune)]
    if facts.lora:
        lora = facts.lora
        yield ["LoRA: rank, alpha, dropout", f"{lora['rank']}, {lora['alpha']:g}, {lora['dropout']:g}"]
        yield ["LoRA: layers", code(", ".join(lora["targets"]))]
    yield ["scene tokens", code(", ".join(f"{k} {v}" for k, v in facts.scene.items() if v is not None))]
    if facts.encoder is None:
        yield ["encoder", "none: it looks at no scene"]
    else:
        origin = facts.encoder
        teacher = f"teacher {code(origin.teacher)}, revision {code(origin.teacher_revision)}"
        yield ["encoder", f"{code(origin.run)}, {teacher}"]
    yield ["parameters", f"{facts.parameters:,}"]


def _metrics(facts: LlmFacts) -> list[str]:
    if not facts.metrics:
        return [f"Of training: {NOT_STATED}."]
    rows = [[code(name), f"{value:.4g}"] for name, value in facts.metrics.items()]
    said = "Of training, on its own data, at the last step before the checkpoint:"
    return [said, "", *table(["", ""], rows)]
