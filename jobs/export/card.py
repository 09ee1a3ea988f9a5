"""The model card: README.md of an encoder for others, filled from its run.

What comes from data and jobs (names, command lines, texts) stands in code spans and fences alone, where
Markdown and HTML mean nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from huggingface_hub import ModelCardData

from jobs.export.facts import NO_VERSION, NOT_READABLE, NOT_STATED, CardFacts, RunFacts
from jobs.runs.evaluations import Evaluation
from jobs.runs.started import DISTRIBUTION
from plinth.redaction import printable, without_codes
from poma3d.auto.folder import is_folder

LIBRARY, TASK = "transformers", "feature-extraction"
TAGS = ("poma3d", "3d", "point-maps", "self-supervised", "scene-understanding")
PAPER = "https://arxiv.org/abs/2511.16567"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
USE = """\
import torch
from transformers import AutoModel, AutoProcessor
import poma3d.auto  # registers the classes; no code from this folder is run

model = AutoModel.from_pretrained("FOLDER")
processor = AutoProcessor.from_pretrained("FOLDER")
inputs = processor(depth, intrinsics, poses)  # one scan: [V, h, w] mm or m, [3, 3], [V, 4, 4] camera -> world
with torch.inference_mode():
    views = model(**inputs)
views.features   # [1, V, E] unit vectors in the teacher's joint space
views.tokens     # [1, V, P, D] patch tokens
views.projected  # [1, V, E] features before they are brought to unit length"""


def render(facts: CardFacts) -> str:
    """The card's Markdown, with its front matter in YAML."""
    return "\n".join(["---", front_matter(facts), "---", "", *_body(facts)]) + "\n"


def front_matter(facts: CardFacts) -> str:
    """What the hub reads, as YAML."""
    source = facts.provenance.teacher_source
    data = ModelCardData(
        license=facts.license,
        library_name=LIBRARY,
        pipeline_tag=TASK,
        tags=list(TAGS),
        base_model=source if is_hub_id(source) else None,
        model_name=printable(facts.name),
    )
    return data.to_yaml().strip("\n")


def is_hub_id(source: str) -> bool:
    """Whether a model is named by its id on the hub, and not by a folder."""
    return bool(HUB_ID.fullmatch(source)) and not Path(source).exists() and not is_folder(source)


def code(text: object) -> str:
    """A text from data as a code span of one line, for tables too: nothing in it is Markdown or HTML."""
    line = " ".join(printable(str(text)).split()).replace("`", "'").replace("|", "\\|")
    return f"`{line}`" if line else NOT_STATED


def fenced(text: str, language: str = "") -> list[str]:
    """A text of several lines in a fence that it cannot close."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}{language}", *without_codes(text).rstrip("\n").split("\n"), fence]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table; cells are Markdown already."""
    lines = [header, ["---"] * len(header), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def _body(facts: CardFacts) -> Iterator[str]:
    teacher = facts.provenance.teacher
    yield f"# {code(facts.name)}"
    yield ""
    yield (
        f"An encoder of 3D scenes, trained with [POMA-3D]({PAPER})'s objectives: it reads point maps, grids "
        "of world coordinates in metres, and gives features of views that are compared with the text "
        f"features of its teacher, {code(teacher)}. It reads geometry alone, no colour."
    )
    yield from ("", "## Use", "")
    yield (
        f"Install the package `{DISTRIBUTION}` (or its wheel): without extras it brings the model with torch "
        "and transformers, without Ray or DeepSpeed."
    )
    yield from ("", *fenced(USE, "python"), "")
    yield (
        "The processor does what the training data went through: the world is turned z-up, pictures upright, "
        "depth is brought to the encoder's grid, the intrinsics with it. It takes `xyz` in place of depth. "
        '`model.rank(views, "a desk by the window", teacher="FOLDER")` ranks views by a text.'
    )
    yield from ("", "## Model", "", *table(["", ""], list(_model(facts))))
    yield from ("", "## Training data", "", *data_section(facts))
    yield from ("", "## Evaluation", "", *evaluations_section(facts))
    yield from ("", "## Configuration", "", *configuration_section(facts))
    yield from ("", "## Hashes and versions", "")
    yield from table(
        ["", ""], [[name, code(found)] for name, found in (facts.hashes | facts.software).items()]
    )
    yield from ("", "## Licences", "")
    yield (
        f"Of these weights: {code(facts.license) if facts.license else NOT_STATED}. They start from the "
        "image tower of the teacher and have learnt from the data above: their licences may bind you, too. "
        f'Where one is "{NOT_STATED}", nobody who exported this has said it; that is no permission.'
    )


def _model(facts: CardFacts) -> Iterator[list[str]]:
    shape, origin = facts.shape, facts.provenance
    height, width = shape.image_size
    yield ["run", code(origin.run)]
    yield ["weights", {"target": "target encoder (moving average)"}.get(origin.weights, code(origin.weights))]
    yield ["teacher", f"{code(origin.teacher)}, revision {code(origin.teacher_revision)}"]
    yield ["logarithm of its temperature factor", f"{origin.logit_scale:.6g}"]
    yield ["input", f"point maps of {height} x {width}, patches of {shape.patch} x {shape.patch}"]
    yield ["layers, width, heads", f"{shape.layers}, {shape.width}, {shape.heads}"]
    yield ["joint space", f"{shape.joint}"]
    yield ["parameters", f"{facts.parameters:,}"]


def data_section(facts: RunFacts) -> list[str]:
    """The data sets that were read."""
    if not facts.data and facts.config:
        return ["Named in the configuration below."]
    if not facts.data:
        return [f"{NOT_STATED.capitalize()}: this was exported from an encoder whose run is elsewhere."]
    rows = [
        [one.stage, *(_cell(text) for text in (one.name, one.version, one.samples, one.hash, one.license))]
        for one in facts.data
    ]
    said = (
        f"Hashes are of the manifests as they are at export. Where no version is kept ({NO_VERSION}) a data "
        "set may have been built again since it was read."
    )
    return [*table(["stage", "data set", "version", "samples", "hash", "licence"], rows), "", said]


def _cell(text: str) -> str:
    """What is known as code, what is not in words."""
    return text if text in (NOT_STATED, NOT_READABLE, NO_VERSION) else code(text)


def evaluations_section(facts: RunFacts) -> Iterator[str]:
    """What is kept beside the run."""
    if not facts.evaluations:
        yield "None is kept beside the run (`poma evaluate` keeps them)."
        return
    yield (
        "As `poma evaluate` has kept them beside the run, the newest first, each with the checkpoint that it "
        "has measured; intervals of 95 % over scenes."
    )
    for one in facts.evaluations:
        yield from _measured(one)
        for benchmark in one.benchmarks:
            yield from _measured(benchmark)
        yield ""
        yield from fenced(one.command, "bash") if one.command else [f"Command: {NOT_STATED}."]


def _measured(evaluation: Evaluation) -> Iterator[str]:
    yield from ("", code(evaluation.title), "")
    rows = [[code(row[0]), *(cell or "-" for cell in row[1:])] for row in evaluation.rows]
    yield from table([evaluation.header[0], *map(code, evaluation.header[1:])], rows)


def configuration_section(facts: RunFacts) -> list[str]:
    """How the run was started, and its job."""
    if not facts.config:
        return [f"{NOT_STATED.capitalize()}: the run is elsewhere."]
    said = ["Started by:", "", *fenced("\n".join(facts.commands), "bash"), ""] if facts.commands else []
    what = "The job, without what says where and on which machines it ran:"
    return [*said, what, "", *fenced(facts.config, "yaml")]
