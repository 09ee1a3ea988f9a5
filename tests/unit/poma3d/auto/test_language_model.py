"""A language model with its encoder and projector through transformers' Auto classes."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForCausalLM, AutoProcessor, Qwen3VLForConditionalGeneration

import poma3d.auto
from poma3d import export
from poma3d.auto.language.folder import save_merged, save_separate
from poma3d.auto.language.model import _with_scenes
from poma3d.llm.config import FULL, LORA, AdapterConfig
from poma3d.llm.generate import Asked, ask, generate
from poma3d.llm.stage import ConversationStage
from tests.helpers.downstream import handed_on, llm
from tests.helpers.downstream.handed_on import MAX_TOKENS, QUESTIONS

SCENES = [0, 2, 1]
EMBEDDED = ("input_ids", "attention_mask", "scene_at", "point_maps", "agent")
TURN = np.array([[0.0, 1, 0, -0.5], [-1, 0, 0, 2], [0, 0, 1, 0]], np.float32)


def own(stage: ConversationStage, agents: Any = None) -> tuple[torch.Tensor, list[list[int]]]:
    chat = llm.chat()
    asked = ask(stage, handed_on.batch_of(chat, QUESTIONS, SCENES, agents))
    return asked.inputs_embeds, generate(stage, asked, chat.stop_ids, MAX_TOKENS)


def plain(model: Any, asked: Asked) -> list[list[int]]:
    """What transformers' own class generates."""
    found: list[list[int]] = model.generate(
        inputs_embeds=asked.inputs_embeds, attention_mask=asked.attention_mask, max_new_tokens=MAX_TOKENS,
        do_sample=False, eos_token_id=[0], pad_token_id=0,
    ).tolist()  # fmt: skip
    return found


def saved(stage: ConversationStage, kind: str, folder: Path) -> Path:
    save_merged(handed_on.trained(stage, kind), folder)
    return folder


@pytest.mark.parametrize(
    ("kind", "tune", "tokens"),
    [
        (llm.QWEN3, LORA, "voxels"),
        (llm.QWEN3_VL, LORA, "patches"),
        (llm.ONEVISION, FULL, "views"),
        (llm.QWEN3, FULL, "none"),
    ],
)
def test_plain_transformers_answers_as_our_own_code(
    kind: str, tune: str, tokens: str, tmp_path: Path
) -> None:
    stage = handed_on.lively(llm.stage(kind, tune, tokens, trained=tokens != "none"))
    agents = [TURN] * len(SCENES) if tokens == "voxels" else None
    embeds, ids = own(stage, agents)
    assert len({tuple(each) for each in ids}) > 1
    seen = {} if tokens == "none" else {"xyz": handed_on.points_of(stage, SCENES)}
    if agents is not None:
        assert own(stage)[1] != ids, "who stands where decides"
    folder = saved(stage, kind, tmp_path)
    assert not any("lora" in name for name in load_file(folder / "model.safetensors"))
    model, processor = AutoModelForCausalLM.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    assert (type(model), type(processor)) == (poma3d.auto.Poma3dLlm, poma3d.auto.Poma3dLlmProcessor)
    inputs = processor(QUESTIONS, **seen, **({} if agents is None else {"agent": TURN}))
    arguments = [inputs.get(name) for name in ("point_maps", "agent")]
    found, _ = model.embeds(inputs["input_ids"], inputs["attention_mask"], inputs["scene_at"], *arguments)
    torch.testing.assert_close(found, embeds, atol=1e-5, rtol=1e-5)
    assert model.generate(**inputs).tolist() == ids
    assert processor.answers(ids) == [llm.chat().read(each) for each in ids]
    torch.testing.assert_close(model(**inputs).logits[:, -1].argmax(-1), torch.tensor(ids)[:, 0])
    if tokens == "none":
        with pytest.raises(ValueError, match="looks at no scene"):
            processor(QUESTIONS, xyz=torch.zeros(1, 1, 8, 8, 3))
    else:
        other = model.embeds(*(inputs[k] for k in ("input_ids", "attention_mask", "scene_at")),
                             inputs["point_maps"].flip(0), inputs.get("agent"))[0]  # fmt: skip
        same = other.shape == found.shape and torch.allclose(other, found)
        assert not same, "the scene is not looked at"


@pytest.mark.parametrize("tokens", ["voxels", "patches", "views"])
def test_a_single_view_is_asked_about_as_in_training(tokens: str, tmp_path: Path) -> None:
    stage = handed_on.lively(llm.stage(llm.QWEN3, LORA, tokens, trained=True))
    chat, views = llm.chat(), [0, 1, 1]  # scene 0 has one view
    asked = ask(stage, handed_on.batch_of(chat, QUESTIONS, SCENES, views=views))
    ids = generate(stage, asked, chat.stop_ids, MAX_TOKENS)
    assert ids != own(stage)[1], "the other views are seen"
    folder = saved(stage, llm.QWEN3, tmp_path)
    model, processor = AutoModelForCausalLM.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    points = handed_on.points_of(stage, SCENES)
    inputs = processor(QUESTIONS, xyz=points, view=views)
    assert inputs["point_maps"].shape[:2] == (len(SCENES), 1)
    assert model.generate(**inputs).tolist() == ids
    one_scan = processor(QUESTIONS, xyz=points[1], view=views)["point_maps"]
    torch.testing.assert_close(one_scan[:, 0], points[1][views])
    for view, says in (
        (3, "the scan has the views 0 to 2"),
        ([0, 1], "2 views for 3 questions"),
        (1, "no point"),
    ):
        with pytest.raises(ValueError, match=says):
            processor(QUESTIONS, xyz=points, view=view)


@pytest.mark.parametrize("tokens", ["voxels", "none"])
def test_the_loss_of_answers_is_that_of_training(tokens: str, tmp_path: Path) -> None:
    stage = handed_on.lively(llm.stage(llm.QWEN3, FULL, tokens, trained=tokens != "none"))
    answers = ["two", "a table and four chairs", "four"]
    chat = llm.chat(max_answer_tokens=MAX_TOKENS)
    batch = handed_on.batch_of(chat, QUESTIONS, SCENES, answers=answers)
    encoded = stage({**batch, "sample_valid": torch.ones(len(QUESTIONS), dtype=torch.bool)})
    expected = encoded.sums["answer"] / encoded.counts["answer"]
    folder = saved(stage, llm.QWEN3, tmp_path)
    model, processor = AutoModelForCausalLM.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    seen = {} if tokens == "none" else {"xyz": handed_on.points_of(stage, SCENES)}
    inputs = processor(QUESTIONS, answer=answers, **seen)
    learned = inputs["labels"][inputs["labels"] != -100]
    assert learned.tolist() == [token for ids in chat.answers(answers)[0] for token in ids]
    found = model(**inputs).loss
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    found.backward()
    trained = [model.projector, model.vit] if tokens != "none" else [model.llm]
    assert all(any(p.grad is not None and p.grad.any() for p in part.parameters()) for part in trained)
    text = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    embeds, there = model.embeds(*(inputs.get(name) for name in EMBEDDED))
    placed = _with_scenes(text, inputs["attention_mask"], inputs["scene_at"], there)
    assert (placed != -100).sum() == (text != -100).sum()
    of_labels = model.get_input_embeddings()(placed.clamp(min=0))
    torch.testing.assert_close(embeds[placed != -100], of_labels[placed != -100])
    with pytest.raises(ValueError, match=r"labels is \[3, 1\], expected"):
        model(**{**inputs, "labels": inputs["labels"][:, :1]})
    for wrong in ("two", ["two", "", "four"]):
        with pytest.raises(ValueError, match="texts for 3 questions: give each its own, none empty"):
            processor(QUESTIONS, answer=wrong, **seen)


def test_one_scene_serves_several_questions_and_a_model_is_saved_again(tmp_path: Path) -> None:
    stage = handed_on.lively(llm.stage(trained=True))
    points = handed_on.points_of(stage, [2])
    folder = saved(stage, llm.QWEN3, tmp_path / "first")
    assert "/home/me" not in "".join(path.read_text() for path in folder.glob("*.json"))
    model, processor = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    together = model.generate(**processor(QUESTIONS, xyz=points, situation="I sit."), min_new_tokens=2)
    alone = model.generate(**processor(f"I sit. {QUESTIONS[1]}", xyz=points), min_new_tokens=2)
    assert together[1][: alone.shape[1]].tolist() == alone[0].tolist()
    again = AutoModel.from_pretrained(folder, dtype=torch.bfloat16)
    assert again.llm.dtype == torch.bfloat16
    assert {p.dtype for p in (*again.projector.parameters(), *again.vit.parameters())} == {torch.float32}
    again.save_pretrained(tmp_path / "again")
    processor.save_pretrained(tmp_path / "again")
    inputs = AutoProcessor.from_pretrained(tmp_path / "again")(QUESTIONS[0], xyz=points)
    reloaded = AutoModel.from_pretrained(tmp_path / "again")
    assert reloaded.generate(**inputs).tolist() == again.generate(**inputs).tolist()


@pytest.mark.parametrize("kind", [llm.QWEN3, llm.QWEN3_VL])
def test_adapters_alone_go_onto_the_model_that_was_tuned(kind: str, tmp_path: Path) -> None:
    stage = handed_on.lively(llm.stage(kind, LORA, trained=True))
    trained = handed_on.trained(stage, kind)
    save_separate(trained, AdapterConfig(rank=2, alpha=4.0), "org/base", "c0ffee", tmp_path)
    said = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (said["base_model_name_or_path"], said["revision"], said["r"]) == ("org/base", "c0ffee", 2)
    base = handed_on.published(stage, kind)
    assert kind != llm.QWEN3_VL or type(base) is Qwen3VLForConditionalGeneration
    asked = ask(stage, handed_on.batch_of(llm.chat(), QUESTIONS, SCENES))
    ids = generate(stage, asked, [0], MAX_TOKENS)
    assert plain(base, asked) != ids
    tuned = PeftModel.from_pretrained(base, tmp_path).eval()
    assert plain(tuned.get_base_model(), asked) == ids
    adapted = {name for name, _ in tuned.named_parameters() if "lora" in name}
    assert len(adapted) == sum("lora" in name for name, _ in stage.llm.named_parameters())
    model = poma3d.auto.join(handed_on.published(stage, kind), tmp_path)
    inputs = AutoProcessor.from_pretrained(tmp_path)(QUESTIONS, xyz=handed_on.points_of(stage, SCENES))
    assert model.generate(**inputs).tolist() == own(stage)[1]
    model.save_pretrained(tmp_path / "merged")
    assert AutoModel.from_pretrained(tmp_path / "merged").generate(**inputs).tolist() == own(stage)[1]
    weights = load_file(tmp_path / "projector.safetensors")
    assert stage.projector is not None
    assert all(torch.equal(weights[name], w) for name, w in stage.projector.state_dict().items())
    assert stage.encoder is not None
    ours = export.load(tmp_path / "encoder").vit.state_dict()
    assert all(torch.equal(w, ours[name]) for name, w in stage.encoder.vit.state_dict().items())


def test_adapters_of_another_model_and_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no poma3d_llm\.json: give the output"):
        poma3d.auto.join(llm.network(llm.QWEN3), tmp_path)
    trained = handed_on.trained(llm.stage(trained=True).eval(), llm.QWEN3)
    save_separate(trained, AdapterConfig(rank=2, alpha=4.0), "org/base", None, tmp_path)
    with pytest.raises(ValueError, match="cannot be loaded") as caught:
        poma3d.auto.join(llm.new_model(), tmp_path)
    assert "\n" not in str(caught.value)


def test_weights_in_bfloat16_are_merged_once_rounded(tmp_path: Path) -> None:
    stage = llm.stage(trained=True).eval()
    for name, parameter in stage.llm.named_parameters():
        if "lora" not in name:
            parameter.data = parameter.data.bfloat16()
    layer = stage.llm.get_decoder().layers[1].mlp.up_proj  # type: ignore[operator]
    down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    expected = (layer.base_layer.weight.float() + 2.0 * (up @ down)).bfloat16()
    model = AutoModel.from_pretrained(saved(stage, llm.QWEN3, tmp_path))
    assert torch.equal(model.llm.get_decoder().layers[1].mlp.up_proj.weight, expected)
    assert model.projector[0].weight.dtype == torch.float32


def test_what_is_not_whole_is_refused(tmp_path: Path) -> None:
    stage = llm.stage(trained=True).eval()
    folder = saved(stage, llm.QWEN3, tmp_path)
    whole = json.loads((folder / "config.json").read_text())
    for change, sentence in (
        ({"format_version": 9}, "format_version 9, this package reads 1"),
        ({"scene": {"tokens": "voxels"}}, "scene is .* expected an object of tokens"),
        ({"feature_dtype": "int8"}, "feature_dtype is 'int8', expected one of float16"),
        ({"encoder": None}, "encoder is None, and scene.tokens is 'voxels'"),
        ({"llm": {**whole["llm"], "model_type": "nobody"}}, "which transformers .* does not know"),
        ({"llms": 1}, "unknown key 'llms': did you mean llm"),
        ({"projector_width": 7}, "of another shape"),
    ):
        (folder / "config.json").write_text(json.dumps(copy.deepcopy(whole) | change))
        with pytest.raises(ValueError, match=sentence) as caught:
            AutoModel.from_pretrained(folder)
        assert "\n" not in str(caught.value)


def test_mistakes_with_a_scan_are_one_sentence(tmp_path: Path) -> None:
    stage = llm.stage(trained=True).eval()
    points = handed_on.points_of(stage, SCENES)
    folder = saved(stage, llm.QWEN3, tmp_path)
    model, processor = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    for words, scan, sentence in (
        ("", {"xyz": points[:1]}, "a question is empty"),
        (QUESTIONS[:2], {"xyz": points}, "3 scenes for 2 questions"),
        ("what?", {}, "depth is missing"),
        ("what?", {"xyz": points[:1], "agent": np.eye(4)}, r"agent is \[4, 4\], expected \[3, 4\]"),
        ("what?", {"xyz": points[:1], "up": [0, 0, 1], "agent": TURN}, "give z-up points xyz, without up"),
        (QUESTIONS, {"xyz": points, "situation": ["a", "b"]}, "2 situations for 3 questions"),
    ):
        with pytest.raises(ValueError, match=sentence):
            processor(words, **scan)
    scan = np.ones((1, 8, 8), np.float32), np.eye(3), np.eye(4)[None]
    named = dict(zip(("depth", "intrinsics", "poses"), scan, strict=True))
    for given, by_name in ((scan, {}), ((torch.ones(1, 8, 8), *scan[1:]), {}), ((), named), ((3,), {})):
        with pytest.raises(ValueError, match="give the question first, then the scan"):
            processor(*given, **by_name)
    inputs = processor("what?", xyz=points[:1])
    with pytest.raises(ValueError, match="point_maps is missing: give the processor a scene"):
        model.generate(**{k: v for k, v in inputs.items() if k != "point_maps"})
