"""Generated answers: each prompt's own, whatever it is asked together with, and what the stage would score
best."""

from __future__ import annotations

import pytest
import torch

from poma3d.llm.generate import ask, generate
from tests.helpers.downstream import llm, scenes

ASKED = [0, 2, 1]
TOKENS = 4


@pytest.mark.parametrize("kind", [llm.QWEN3, llm.QWEN3_VL, llm.ONEVISION])
def test_an_answer_is_the_same_in_any_company(kind: str) -> None:
    stage = llm.stage(kind, packed_tokens=400).eval()
    whole = scenes.by_scene(stage.fake_batch(len(ASKED)), ASKED)
    asked = ask(stage, whole)
    assert len({int(n) for n in asked.attention_mask.sum(dim=1)}) > 1  # of several lengths
    together = generate(stage, asked, [0], TOKENS)
    for i in range(len(ASKED)):
        alone = {k: v[i : i + 1] for k, v in whole.items()}
        (found,) = generate(stage, ask(stage, alone), [0], TOKENS)
        assert together[i][: len(found)] == found


def test_the_first_token_is_the_one_that_training_scores_best() -> None:
    stage = llm.stage().eval()
    whole = scenes.by_scene(stage.fake_batch(len(ASKED)), ASKED)
    found = generate(stage, ask(stage, whole), [0], 1)
    with torch.no_grad():
        prepared = stage.prepare(whole)
        first = (
            prepared["layout/label_sample"].unique(return_inverse=True)[1].diff(prepend=torch.tensor([-1]))
            > 0
        )
        best = stage.logits(prepared)[first].argmax(dim=1)
    assert [ids[0] for ids in found] == best.tolist()
