"""A small text tower with new weights that knows the words of some questions."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from poma3d.annotations.rows import Question
from poma3d.pretrained.folder import share

PAD, START, UNKNOWN, END = "[PAD]", "[CLS]", "[UNK]", "[SEP]"
WORD = r"[a-z0-9]+|[^\sa-z0-9]"
WIDTH, LAYERS, HEADS, TOKENS = 64, 1, 4, 64
MARK = "untrained.json"
"""What says that a folder was written here, so that it may be written again."""


def write_tower(questions: Iterable[Question], folder: Path, seed: int) -> int:
    """Write the folder, whole or not at all; returns how many words the tower knows.

    Raises:
        ValueError: another folder is there.
    """
    words = sorted(
        {word for q in questions for text in q.asked(" ") for word in re.findall(WORD, text.lower())}
    )
    vocabulary = {word: i for i, word in enumerate([PAD, START, UNKNOWN, END, *words])}
    if folder.exists() and not (folder / MARK).exists():
        raise ValueError(f"{folder} is there already and was not written by this command")
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex(WORD), behavior="isolated")]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(mark, vocabulary[mark]) for mark in (START, END)]
    )
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=4 * WIDTH,
        max_position_embeddings=TOKENS,
        pad_token_id=vocabulary[PAD],
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BertModel(config)
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    model.save_pretrained(partial)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=TOKENS,
        pad_token=PAD,
        cls_token=START,
        sep_token=END,
        unk_token=UNKNOWN,
    ).save_pretrained(partial)
    (partial / MARK).write_text(json.dumps({"seed": seed, "words": len(words)}) + "\n")
    share(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return len(words)
