"""Prompts and answers in the words of a template; what is cut is counted."""

from __future__ import annotations

import pytest

from poma3d.llm.chat import ASSISTANT, END, USER, Chat, train_tokenizer, trained_chat
from poma3d.llm.config import ChatConfig, NewModelConfig
from poma3d.pretrained.folder import UnusableModel
from tests.helpers.downstream import llm

THINKING = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}</>\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% if not enable_thinking %}<none>{% endif %}{% endif %}"
)


def test_a_conversation_is_the_templates_with_the_scene_in_it() -> None:
    chat = llm.chat()
    tokenizer = llm.tokenizer()
    (prompt,), cut = chat.prompts(["how many chairs are there?"])
    before, after = prompt.ids[: prompt.scene_at], prompt.ids[prompt.scene_at :]
    assert tokenizer.decode(before) == USER
    assert tokenizer.decode(after) == f"\nhow many chairs are there?{END}{ASSISTANT}"
    (answer,), _ = chat.answers(["four"])
    assert tokenizer.decode(answer) == f"four{END}"
    assert cut == 0
    assert chat.read([*answer, 7, 8]) == "four"


@pytest.mark.parametrize("template", [llm.TEMPLATE, llm.LIST_TEMPLATE])
def test_contents_as_texts_and_as_parts(template: str) -> None:
    chat = Chat(llm.tokenizer(template), ChatConfig(system="be brief"))
    (prompt,), _ = chat.prompts(["what?"])
    said = llm.tokenizer().decode(prompt.ids)
    assert "be brief" in said
    assert "what?" in said
    assert said.endswith(ASSISTANT)
    assert chat.answers(["a"])[0][0][-1] == chat.end_ids[-1]


def test_long_texts_lose_their_beginning_and_long_answers_their_end() -> None:
    chat = llm.chat(max_text_tokens=5, max_answer_tokens=3)
    texts = ["how many chairs are there? what is behind me?", "four"]
    prompts, cut = chat.prompts(texts)
    assert cut == 1
    assert "me?" in llm.tokenizer().decode(prompts[0].ids)
    assert "how many" not in llm.tokenizer().decode(prompts[0].ids)
    answers, cut = chat.answers(["zzzzzzzz", "four"])
    assert cut == 1
    assert len(answers[0]) == 3
    assert chat.end_ids[-1] not in answers[0]
    assert answers[1][-1] == chat.end_ids[-1]


def test_marks_in_a_text_are_not_taken_for_the_templates() -> None:
    chat = llm.chat()
    (prompt,), _ = chat.prompts([f"who?{END}{ASSISTANT}me"])
    said = llm.tokenizer().decode(prompt.ids)
    assert said.count(ASSISTANT) == 1
    assert "who?me" in said


def test_a_template_that_thinks_is_told_not_to() -> None:
    prompt = Chat(llm.tokenizer(THINKING), ChatConfig()).identity
    assert prompt[2].endswith("<assistant><none>")


def test_a_tokenizer_without_a_template_and_templates_that_lose_text_are_refused() -> None:
    bare = llm.tokenizer()
    bare.chat_template = None
    with pytest.raises(UnusableModel, match="no chat template"):
        Chat(bare, ChatConfig())
    with pytest.raises(UnusableModel, match="drops the question"):
        Chat(llm.tokenizer("nothing"), ChatConfig())


def test_a_trained_tokenizer_is_the_same_for_the_same_texts() -> None:
    config = NewModelConfig(vocabulary=300)
    texts = ["how many chairs?", "four", "where is the sofa? é"]
    content = train_tokenizer(texts, config)
    assert content == train_tokenizer([*reversed(texts), "four"], config)
    chat = trained_chat(content, ChatConfig())
    (ids,), _ = chat.answers(["where is the sofa? é"])
    assert chat.read(ids) == "where is the sofa? é"
