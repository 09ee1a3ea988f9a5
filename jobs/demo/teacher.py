"""Train the demo's teacher: a tiny but real CLIP on a data set's own colour images and captions.

The demo may not download weights, so it makes its teacher: a `CLIPModel` of under a million
parameters, trained for about a minute and saved as an ordinary Hugging Face folder, which
`poma3d.pretrained.teacher` then loads like any other CLIP. Its cue is colour, which the student never sees.

Legend: B scenes of a batch, V views, H W pixels, T tokens, E joint space.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from torch.nn import functional
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from jobs.demo.teacher_config import TeacherTrainConfig
from jobs.display.progress import Progress
from plinth.engine.adamw import lr_at
from plinth.engine.config import OptimConfig
from poma3d.pretrained.folder import share
from poma3d.sample import Sample

# The end of a text must not be token 2: transformers then falls back to an older way to find it.
PAD, START, UNKNOWN, END = "<pad>", "<start>", "<unknown>", "<end>"
WORD = r"[a-z0-9]+|[^\sa-z0-9]"
RECORD = "training.json"
CHANNEL_MEAN, CHANNEL_STD = 0.5, 0.5
HALVES = 2
"""Parts of a batch, each of which goes through the model in a thread of its own."""
# Rec. 601 luma, what a person sees as brightness.
LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class TrainedTeacher:
    """Where the teacher lies, whether it came from the cache, and how well it had learned."""

    folder: Path
    cached: bool
    loss: float
    accuracy: float


@dataclass(frozen=True)
class TeacherData:
    """Colour uint8 [S, V, H, W, 3] and the captions of S scenes of V views."""

    colour: np.ndarray
    view_captions: list[list[list[str]]]
    scene_captions: list[list[str]]


def train_teacher(samples: Sequence[Sample], folder: Path, config: TeacherTrainConfig) -> TrainedTeacher:
    """Train a tiny CLIP into `folder`, or do nothing if it holds the one for this data and config.

    Args:
        samples: scenes with colour and captions, all of the same number of views.
        folder: written whole or not at all; loadable by `transformers.CLIPModel.from_pretrained`.

    Raises:
        ValueError: a scene lacks colour or captions.
    """
    key = cache_key(samples, config)
    record = folder / RECORD
    if record.exists() and (found := json.loads(record.read_text()))["key"] == key:
        print(f"teacher: {folder} is up to date")
        return TrainedTeacher(folder, True, found["loss"], found["accuracy"])
    data = load(samples, config.image_size)
    tokenizer = build_tokenizer(data, config.text_tokens)
    model, loss, accuracy = fit(data, tokenizer, config)
    learned = {"key": key, "loss": loss, "accuracy": accuracy, "config": asdict(config)}
    save(model, tokenizer, folder, config, learned)
    return TrainedTeacher(folder, False, loss, accuracy)


def cache_key(samples: Sequence[Sample], config: TeacherTrainConfig) -> str:
    """Hash of the config and of all that the teacher sees; threads do not matter."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps({**asdict(config), "threads": 0}, sort_keys=True).encode())
    for sample in samples:
        digest.update(json.dumps([sample.scene_id, sample.view_captions, sample.scene_captions]).encode())
        for jpeg in sample.colour:
            digest.update(jpeg)
    return digest.hexdigest()


def load(samples: Sequence[Sample], image_size: int) -> TeacherData:
    """Decode the colour images.

    Raises:
        ValueError: naming the scene that lacks colour or captions.
    """
    for sample in samples:
        if not sample.colour:
            raise ValueError(f"scene {sample.scene_id} has no colour images: a teacher cannot learn from it")
        if not sample.scene_captions or not all(sample.view_captions):
            raise ValueError(f"scene {sample.scene_id} lacks captions: a teacher cannot learn from it")
    colour = np.stack([np.stack([_decode(jpeg, image_size) for jpeg in s.colour]) for s in samples])
    return TeacherData(colour, [s.view_captions for s in samples], [s.scene_captions for s in samples])


def build_tokenizer(data: TeacherData, text_tokens: int) -> PreTrainedTokenizerFast:
    """One token per word of the captions: their vocabulary is small and closed."""
    words: set[str] = set()
    for views, scene in zip(data.view_captions, data.scene_captions, strict=True):
        for caption in [c for view in views for c in view] + scene:
            words.update(re.findall(WORD, caption.lower()))
    vocabulary = {word: i for i, word in enumerate([PAD, START, UNKNOWN, END, *sorted(words)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex(WORD), behavior="isolated")]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(t, vocabulary[t]) for t in (START, END)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=text_tokens,
        pad_token=PAD,
        bos_token=START,
        eos_token=END,
        unk_token=UNKNOWN,
    )


def build_model(tokenizer: PreTrainedTokenizerFast, config: TeacherTrainConfig) -> CLIPModel:
    """A `CLIPModel` with random weights."""
    vision = {
        "hidden_size": config.image_width,
        "intermediate_size": 4 * config.image_width,
        "num_hidden_layers": config.image_layers,
        "num_attention_heads": config.image_heads,
        "image_size": config.image_size,
        "patch_size": config.patch_size,
    }
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": config.text_width,
        "intermediate_size": 4 * config.text_width,
        "num_hidden_layers": config.text_layers,
        "num_attention_heads": config.text_heads,
        "max_position_embeddings": config.text_tokens,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    return CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=config.embedding))


def fit(
    data: TeacherData, tokenizer: PreTrainedTokenizerFast, config: TeacherTrainConfig
) -> tuple[CLIPModel, float, float]:
    """Train; gives the model, the last losses' mean and how often a view finds its caption in a batch."""
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        model = build_model(tokenizer, config)
    matrices = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=config.lr,
        betas=(0.9, 0.98),
    )
    factor = OptimConfig(lr=1.0, warmup_steps=config.warmup_steps, min_lr_ratio=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: lr_at(factor, step, config.steps))
    rng = np.random.default_rng(config.seed)
    order = _epochs(len(data.colour), min(config.scenes_per_batch, len(data.colour)), rng)
    progress = Progress("teacher", "steps", config.steps)
    model.train()
    loss, accuracy = float("nan"), float("nan")
    # Operations this small gain little from threads within them, a half of the batch in each gains a core.
    with ThreadPoolExecutor(
        min(config.threads, HALVES), initializer=partial(torch.set_num_threads, 1)
    ) as pool:
        for scenes in islice(order, config.steps):
            pixels = augment(data.colour[scenes], config, rng)
            view_texts, scene_texts = draw_texts(data, scenes, config.joined_captions, rng)
            step_loss, step_accuracy = backward(
                model, tokenizer, pixels, view_texts, scene_texts, config, pool
            )
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip)
            optimizer.step()
            schedule.step()
            loss, accuracy = _smooth(loss, step_loss.item()), _smooth(accuracy, step_accuracy.item())
            progress.advance(note=f"loss {loss:.2f}, a view finds its caption {accuracy:.0%}")
    return model.eval(), loss, accuracy


def augment(colour: np.ndarray, config: TeacherTrainConfig, rng: np.random.Generator) -> Tensor:
    """uint8 [B, V, H, W, 3] -> float32 [B*V, 3, H, W] as the tower takes it, some grey, some tinted."""
    x = colour.reshape(-1, *colour.shape[2:]).astype(np.float32) / 255.0
    n = len(x)
    grey = rng.random(n) < config.grey
    x[grey] = (x[grey] @ np.array(LUMA, np.float32))[..., None]
    if config.jitter:
        x = x * rng.uniform(1 - config.jitter, 1 + config.jitter, (n, 1, 1, 3)).astype(np.float32)
    x = (x.clip(0.0, 1.0) - CHANNEL_MEAN) / CHANNEL_STD
    return torch.from_numpy(x).permute(0, 3, 1, 2).contiguous()


def draw_texts(
    data: TeacherData, scenes: np.ndarray, joined: int, rng: np.random.Generator
) -> tuple[list[str], list[str]]:
    """One caption for each view (B*V) and one text for each scene (B): its own caption, or joined ones."""
    view_texts, scene_texts = [], []
    for index in scenes:
        views = data.view_captions[index]
        view_texts += [captions[rng.integers(len(captions))] for captions in views]
        if rng.random() < 0.5:
            scene_texts.append(str(rng.choice(data.scene_captions[index])))
            continue
        everything = [caption for captions in views for caption in captions]
        chosen = rng.permutation(len(everything))[: rng.integers(1, joined + 1)]
        scene_texts.append(" ".join(everything[i] for i in chosen))
    return view_texts, scene_texts


def backward(
    model: CLIPModel,
    tokenizer: PreTrainedTokenizerFast,
    pixels: Tensor,
    view_texts: list[str],
    scene_texts: list[str],
    config: TeacherTrainConfig,
    pool: Executor,
) -> tuple[Tensor, Tensor]:
    """The gradients of a step into the parameters; its loss and accuracy, as `contrast`.

    The batch is cut in halves whatever the number of threads, so that this does not change a digit.
    """
    scenes, views = len(scene_texts), len(view_texts) // len(scene_texts)
    middle = -(-scenes // HALVES)
    halves = [
        (
            pixels[first * views : last * views],
            view_texts[first * views : last * views],
            scene_texts[first:last],
        )
        for first, last in ((0, middle), (middle, scenes))
        if first < last
    ]
    encoded = list(pool.map(lambda half: features(model, tokenizer, half, config.text_tokens), halves))
    cut = [[part.detach().requires_grad_() for part in half] for half in encoded]
    image, view_text, scene_text = (torch.cat(parts) for parts in zip(*cut, strict=True))
    model.zero_grad()
    scale = model.logit_scale.exp().clamp(max=100.0)
    loss, accuracy = contrast(
        scale, image, view_text, scene_text, view_texts, scene_texts, config.scene_weight
    )
    loss.backward()
    parameters = [p for p in model.parameters() if p is not model.logit_scale]

    def through(half: int) -> tuple[Tensor, ...]:
        return torch.autograd.grad(encoded[half], parameters, [part.grad for part in cut[half]])

    for parameter, *grads in zip(parameters, *pool.map(through, range(len(halves))), strict=True):
        parameter.grad = torch.stack(grads).sum(dim=0)
    return loss.detach(), accuracy


def features(
    model: CLIPModel,
    tokenizer: PreTrainedTokenizerFast,
    batch: tuple[Tensor, list[str], list[str]],
    text_tokens: int,
) -> list[Tensor]:
    """Unit vectors [n, E] of pixels, of the texts of views and of those of scenes."""
    pixels, *texts = batch
    # Apart, because a text is padded to the longest beside it, and those of scenes are several times as long.
    of_texts = [
        model.get_text_features(
            **tokenizer(of, padding=True, truncation=True, max_length=text_tokens, return_tensors="pt")
        )
        for of in texts
    ]
    found = [model.get_image_features(pixels), *of_texts]
    return [functional.normalize(one.pooler_output, dim=-1) for one in found]


def contrast(
    scale: Tensor,
    image: Tensor,
    view_text: Tensor,
    scene_text: Tensor,
    view_texts: list[str],
    scene_texts: list[str],
    scene_weight: float,
) -> tuple[Tensor, Tensor]:
    """The loss of views and of scenes against their texts, and the share of views that find theirs."""
    scene_image = functional.normalize(image.unflatten(0, (len(scene_texts), -1)).mean(dim=1), dim=-1)
    view_loss, accuracy = _nce(scale * image @ view_text.T, view_texts)
    scene_loss, _ = _nce(scale * scene_image @ scene_text.T, scene_texts)
    return view_loss + scene_weight * scene_loss, accuracy


def save(
    model: CLIPModel,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
    config: TeacherTrainConfig,
    record: dict[str, object],
) -> None:
    """Write the Hugging Face folder beside its place and move it there, so that it is whole or absent."""
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()  # a bar for a file of two megabytes
    model.save_pretrained(partial)
    if bars:
        transformers_logging.enable_progress_bar()
    tokenizer.save_pretrained(partial)
    size = {"height": config.image_size, "width": config.image_size}
    CLIPImageProcessorPil(
        size=size, do_center_crop=False, image_mean=[CHANNEL_MEAN] * 3, image_std=[CHANNEL_STD] * 3
    ).save_pretrained(partial)
    (partial / RECORD).write_text(json.dumps(record, indent=2))
    share(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def _nce(logits: Tensor, texts: list[str]) -> tuple[Tensor, Tensor]:
    """Symmetric cross-entropy to the diagonal; equal texts are not each other's negatives."""
    _, kind = np.unique(texts, return_inverse=True)
    same = torch.from_numpy(kind[:, None] == kind[None, :])
    diagonal = torch.eye(len(texts), dtype=torch.bool)
    logits = logits.masked_fill(same & ~diagonal, float("-inf"))
    target = torch.arange(len(texts))
    loss = functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)
    return loss / 2, (logits.detach().argmax(dim=1) == target).float().mean()


def _epochs(scenes: int, batch: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Endless batches of scene indices; each epoch is a fresh permutation without its ragged end."""
    while True:
        order = rng.permutation(scenes)
        for start in range(0, scenes - batch + 1, batch):
            yield order[start : start + batch]


def _smooth(mean: float, value: float, momentum: float = 0.95) -> float:
    return value if math.isnan(mean) else momentum * mean + (1 - momentum) * value


def _decode(jpeg: bytes, size: int) -> np.ndarray:
    image = Image.open(io.BytesIO(jpeg)).convert("RGB")
    return np.asarray(image if image.size == (size, size) else image.resize((size, size)))
