"""The model card of an encoder."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from jobs.export import card
from jobs.export.facts import NO_VERSION, NOT_READABLE, NOT_STATED, CardFacts, DataFact, without_folders
from jobs.runs.evaluations import Evaluation
from poma3d.export import Provenance
from tests.helpers import tiny

NASTY = "`x` | <script>alert(1)</script>\n## [a](http://b) ---"
FACTS = CardFacts(
    name="rooms",
    license="cc-by-nc-4.0",
    provenance=Provenance("org/teacher", "abc", 2.5, "s3://runs/rooms/main step 3", "org/teacher"),
    shape=tiny.tower().shape,
    parameters=12345,
    data=[DataFact("main", "rooms", "3", "1,000", "d1g35t", "CC BY 4.0")],
    evaluations=[
        Evaluation(
            "held_out, main step 3, 2026-01-01",
            ["encoder", "R@1-5"],
            [["this encoder", "0.250 [0.125, 0.500]"]],
            "poma evaluate x.yaml data=held_out",
            [Evaluation("retrieval: sqa3d.json; chunks 5", ["encoder", "R@1"], [["chance", "0.020"]])],
        )
    ],
    config="kind: pretrain\nseed: 7\n",
    hashes={"sha256 of model.safetensors": "f00"},
    software={"exported with torch": "2.13.0"},
    commands=["poma pretrain job.yaml"],
)


def loaded(facts: CardFacts, folder: Path) -> ModelCard:
    (folder / "README.md").write_text(card.render(facts))
    return ModelCard.load(folder / "README.md")


def test_hub_reads_the_front_matter(tmp_path: Path) -> None:
    data = loaded(FACTS, tmp_path).data
    assert (data.license, data.library_name, data.pipeline_tag) == (
        "cc-by-nc-4.0", "transformers", "feature-extraction",
    )  # fmt: skip
    assert data.base_model == "org/teacher"
    assert "poma3d" in data.tags
    without = replace(FACTS, license=None, provenance=Provenance("teacher"))
    assert {"license", "base_model"}.isdisjoint(loaded(without, tmp_path).data.to_dict())


def test_card_says_what_the_run_knows(tmp_path: Path) -> None:
    text = loaded(FACTS, tmp_path).text
    for part in (
        "| main | `rooms` | `3` | `1,000` | `d1g35t` | `CC BY 4.0` |",
        "| `this encoder` | 0.250 [0.125, 0.500] |",
        "`retrieval: sqa3d.json; chunks 5`\n\n| encoder | `R@1` |\n| --- | --- |\n| `chance` | 0.020 |\n",
        "```bash\npoma evaluate x.yaml data=held_out\n```",
        "```yaml\nkind: pretrain\nseed: 7\n```",
        "| sha256 of model.safetensors | `f00` |",
        "| exported with torch | `2.13.0` |",
        "Of these weights: `cc-by-nc-4.0`.",
        "| run | `s3://runs/rooms/main step 3` |",
    ):
        assert part in text


def test_what_is_not_known_is_not_stated(tmp_path: Path) -> None:
    unknown = DataFact("main", "rooms", NO_VERSION, NOT_STATED, NOT_READABLE, NOT_STATED)
    facts = replace(FACTS, license=None, data=[unknown], evaluations=[], config="", commands=[])
    text = loaded(facts, tmp_path).text
    assert "| main | `rooms` | none | not stated | not readable now | not stated |" in text
    assert "Of these weights: not stated." in text
    assert "None is kept beside the run" in text
    evaluation = replace(FACTS.evaluations[0], command="")
    assert "Command: not stated." in loaded(replace(FACTS, evaluations=[evaluation]), tmp_path).text


def test_what_comes_from_data_is_escaped(tmp_path: Path) -> None:
    evaluation = Evaluation(NASTY, ["encoder", NASTY], [[NASTY, ""]], f"poma evaluate {NASTY}\n```\n# out")
    facts = replace(
        FACTS, name=NASTY, data=[DataFact("main", NASTY, NASTY, NASTY, NASTY, NASTY)], license=NASTY,
        evaluations=[evaluation], config=f"name: |\n  ```\n  {NASTY}\n", hashes={"sha256 of x": NASTY},
        provenance=Provenance(NASTY, NASTY, 0.0, NASTY, NASTY, weights=NASTY), commands=[NASTY],
    )  # fmt: skip
    read = loaded(facts, tmp_path)
    assert read.data.license == NASTY
    text = read.text
    fence = re.compile(r"^(`{3,})\w*$.*?^\1$", re.MULTILINE | re.DOTALL)
    outside = re.sub(r"`[^`\n]+`", "", fence.sub("", text))
    for part in ("<", "script", "http://b", "alert"):
        assert part not in outside, part
    headings = [line for line in outside.splitlines() if line.startswith("#")]
    assert len(headings) == 8, headings
    assert {
        line.count("|") - line.count("\\|") for line in text.splitlines() if line.startswith("| main")
    } == {7}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("poma evaluate x.yaml run=/home/me/runs/a data=/d/rooms", "poma evaluate x.yaml run=a data=rooms"),
        ("run=s3://bucket/runs/a", "run=s3://bucket/runs/a"),
        ("[{uri: /data/rooms}, {uri: relative/rooms}]", "[{uri: rooms}, {uri: relative/rooms}]"),
    ],
)
def test_folders_of_this_machine_are_cut(text: str, expected: str) -> None:
    assert without_folders(text) == expected
