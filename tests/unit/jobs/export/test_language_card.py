"""The model card of a language model."""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from jobs.export import language_card
from jobs.export.facts import NOT_STATED, DataFact
from jobs.export.language_facts import LlmFacts
from poma3d.export import Provenance
from poma3d.llm.config import AdapterConfig, LlmSceneConfig

NASTY = "`x` | <script>alert(1)</script>\n## [a](http://b) ---"
FACTS = LlmFacts(
    name="sqa3d",
    license="cc-by-nc-4.0",
    parameters=12345,
    data=[DataFact("conversations", "sqa3d", "none", "26 conversations", "d1g35t", NOT_STATED)],
    evaluations=[],
    config="kind: finetune_llm\n",
    hashes={"sha256 of model.safetensors": "f00"},
    software={"exported with torch": "2.13.0"},
    run="llm-sqa3d/training step 3",
    has_base=True,
    base="org/llm",
    base_revision="c0ffee",
    is_hub=True,
    llm_class="causal",
    tune="lora",
    lora=asdict(AdapterConfig(rank=8)),
    scene=asdict(LlmSceneConfig()),
    encoder=Provenance("teacher", "abc", run="s3://runs/rooms/main step 3"),
    metrics={"loss": 1.25},
    separate=False,
)


def loaded(facts: LlmFacts, folder: Path) -> ModelCard:
    (folder / "README.md").write_text(language_card.render(facts))
    return ModelCard.load(folder / "README.md")


def test_card_says_what_the_run_knows(tmp_path: Path) -> None:
    card = loaded(FACTS, tmp_path)
    assert (card.data.base_model, card.data.library_name, card.data.pipeline_tag) == (
        "org/llm", "transformers", "text-generation",
    )  # fmt: skip
    for part in (
        "| base model | `org/llm`, revision `c0ffee` |",
        "| LoRA: rank, alpha, dropout | 8, 32, 0 |",
        "| encoder | `s3://runs/rooms/main step 3`, teacher `teacher`, revision `abc` |",
        "| conversations | `sqa3d` | none | `26 conversations` | `d1g35t` | not stated |",
        "| `loss` | 1.25 |",
        "```yaml\nkind: finetune_llm\n```",
    ):
        assert part in card.text


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("sees", [False, True])
def test_its_code_is_python_of_names_that_are_there(separate: bool, sees: bool, tmp_path: Path) -> None:
    encoder = FACTS.encoder if sees else None
    text = loaded(replace(FACTS, separate=separate, encoder=encoder), tmp_path).text
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    compile(block, "card", "exec")
    exec("\n".join(line for line in block.splitlines() if "import " in line), {})
    assert ("depth" in block) == sees
    assert ("join(base" in block) == separate
    assert not {"SCAN", "CLASS"} & set(re.findall(r"\w+", block))


def test_a_model_that_sees_no_scene_is_not_said_to(tmp_path: Path) -> None:
    sees, blind = (loaded(replace(FACTS, encoder=one), tmp_path) for one in (FACTS.encoder, None))
    said = [re.split(r"\n## ", card.text)[0] for card in (sees, blind)]
    assert "answers questions about 3D scenes" in said[0]
    assert "sees no scene" in said[1]
    assert not re.search("3D|encoder|projector", said[1])
    assert "3d-question-answering" in sees.data.tags
    assert "3d-question-answering" not in blind.data.tags


def test_what_is_not_known_is_not_stated(tmp_path: Path) -> None:
    facts = replace(FACTS, license=None, metrics={}, encoder=None, is_hub=False, lora={}, tune="full")
    card = loaded(facts, tmp_path)
    assert {"license", "base_model"}.isdisjoint(card.data.to_dict())
    for part in ("Of these weights: not stated.", "Of training: not stated.", "none: it looks at no scene"):
        assert part in card.text
    assert "LoRA" not in card.text


def test_a_model_without_adapters_or_base_has_none_on_its_card(tmp_path: Path) -> None:
    tuned = loaded(FACTS, tmp_path).text
    assert "Adapters are folded into the weights. `generate` takes" in tuned
    assert "They start from the language model and the encoder above and have learnt" in tuned
    full = loaded(replace(FACTS, lora={}, tune="full"), tmp_path).text
    assert "dapters" not in full
    assert "| base model | `org/llm`, revision `c0ffee` |" in full
    new = replace(FACTS, lora={}, tune="full", has_base=False, base="new weights", is_hub=False)
    text = loaded(new, tmp_path).text
    assert "dapters" not in text
    assert "A language model of new weights that answers" in text
    assert "| base model | none: trained from new weights |" in text
    assert "They start from the encoder above and have learnt" in text
    assert "They have learnt from the data" in loaded(replace(new, encoder=None), tmp_path).text


def test_what_comes_from_data_is_escaped(tmp_path: Path) -> None:
    facts = replace(
        FACTS, name=NASTY, base=NASTY, base_revision=NASTY, license=NASTY, run=NASTY, tune=NASTY,
        is_hub=False, data=[DataFact("conversations", NASTY, NASTY, NASTY, NASTY, NASTY)],
        lora={**FACTS.lora, "targets": [NASTY]}, scene={"tokens": NASTY}, metrics={NASTY: 1.0},
        encoder=Provenance(NASTY, NASTY, 0.0, NASTY), config=f"name: |\n  ```\n  {NASTY}\n",
        commands=[NASTY],
    )  # fmt: skip
    text = loaded(facts, tmp_path).text
    fence = re.compile(r"^(`{3,})\w*$.*?^\1$", re.MULTILINE | re.DOTALL)
    outside = re.sub(r"`[^`\n]+`", "", fence.sub("", text))
    for part in ("<", "script", "http://b", "alert"):
        assert part not in outside, part
    assert len([line for line in outside.splitlines() if line.startswith("#")]) == 8
