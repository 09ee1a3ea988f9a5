"""The training of a language model on scenes as a stage: the shape of the platform's `Stage`.

    scene -> encoder (trained) or its features (frozen) -> scene tokens -> projector -+
    question, answer -> token ids -> embedding ------------------------- in one row --+-> blocks -> next token

The loss is local to a sample: `forward` gives its sum over the answer tokens of the micro-batch and their
count, so a step does not depend on how the global batch is split. What is drawn (situation, answer) depends
on seed, epoch and sample alone; `prepare` draws it on the host, reads the scenes and lays out the rows.
Dropout of adapters is the engine's: drawn by the micro-batch's place in the global batch.

Legend: n samples of a micro-batch, U scenes of theirs, V views, P patches, E width of a view's feature, M
scene tokens, D their width, W width of the language model, R rows of L places, K places with a label.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from poma3d.inputs import Batch, point_maps, read_samples, uniform
from poma3d.llm.config import DRAWN, SAMPLES, ChatConfig
from poma3d.llm.conversations import COLUMNS, ConversationShape
from poma3d.llm.layout import PREFIX, Text, attention, lay_out, placed
from poma3d.llm.model import decoder_of, frozen_names, new_projector, width_of
from poma3d.network.encoder import PointMapEncoder
from poma3d.seen.config import NONE, VIEWS
from poma3d.seen.scenes import CELLS, FEATURES, POSITIONS, SCENE_ROW, SEEN, WHOLE_SCENE, SeenScenes
from poma3d.seen.tokens import arranged
from poma3d.stages import Contrast, Encoded, ParamGroup

ANSWER = "answer"
IDS = f"{PREFIX}ids"
MATRIX = 2


@dataclass(frozen=True)
class Projection:
    """The projector between scene tokens and language model."""

    hidden: int | None = None
    """Its width; that of the language model when None."""
    lr_scale: float = 1.0
    """Its peak learning rate over the language model's."""


class ConversationStage(nn.Module):
    """A language model with its projector; `reported` are the names of its loss terms."""

    log_details = False
    """Set by the loop for the steps whose costlier logs it shows."""
    reported = (ANSWER,)

    def __init__(
        self,
        llm: nn.Module,
        chat: ChatConfig,
        seen: SeenScenes,
        shape: ConversationShape,
        seed: int,
        loss: str,
        projection: Projection | None = None,
    ) -> None:
        """A projector with new weights that depend on `seed` alone.

        Args:
            llm: of `poma3d.llm.model`.
            loss: of `LlmConfig.loss`.
        """
        super().__init__()
        self.chat, self.seen, self.shape, self.seed, self.loss = chat, seen, shape, seed, loss
        self.projection = projection or Projection()
        self.llm = llm
        self.encoder: PointMapEncoder | None = seen.encoder
        self.projector: nn.Sequential | None = None
        if seen.config.tokens != NONE:
            out = width_of(llm)
            hidden = self.projection.hidden or out
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                self.projector = new_projector(seen.width, hidden, out)

    # -- the stage --------------------------------------------------------------------------------------

    def forward(self, batch: Batch, features_only: bool = False) -> Encoded:
        """`sums["answer"]`: the loss over the answers of valid samples; with `features_only` only what it is
        divided by."""
        batch = self.prepare(batch)
        whose_K = batch[f"{PREFIX}label_sample"]
        valid_n = batch["sample_valid"]
        weight_K = valid_n[whose_K].float()
        count = weight_K.sum()
        if self.loss == SAMPLES:
            count = valid_n.float().sum()
            weight_K = weight_K / batch[f"{PREFIX}label_count"][whose_K].clamp(min=1)
        encoded = Encoded(counts={ANSWER: count}, weights={ANSWER: 1.0})
        if features_only:
            return encoded
        logits_KX = self.logits(batch)
        labels_K = batch[f"{PREFIX}labels"]
        losses_K = F.cross_entropy(logits_KX, labels_K, reduction="none")
        encoded.sums[ANSWER] = (losses_K * weight_K).sum()
        with torch.no_grad():
            right_K = (logits_KX.argmax(dim=1) == labels_K).float() * valid_n[whose_K]
            encoded.logs["token_accuracy"] = right_K.sum() / valid_n[whose_K].float().sum().clamp(min=1)
        return encoded

    def prepare(self, batch: Batch) -> Batch:
        """The batch with its scenes, what is drawn for its samples, and the layout of its rows; itself if it
        is so already. Call it before the batch goes to a device."""
        if IDS in batch:
            return batch
        return self._laid_out(batch, self.chat.packed_tokens, with_answers=True)

    def prepare_prompts(self, batch: Batch) -> Batch:
        """The same without the answers, one conversation a row: for generation."""
        return batch if IDS in batch else self._laid_out(batch, None, with_answers=False)

    def read_ahead(self, batch: Batch) -> None:
        """What `prepare` will need of a batch that comes later; the reading thread calls it."""
        if self.seen.scenes is not None and self.seen.config.tokens != NONE:
            self.seen.scenes.read_ahead(sorted(set(batch["scene"].tolist())))

    def contrast(self, features: dict[str, Tensor]) -> Contrast:
        """No loss over the global batch."""
        return Contrast(total=torch.zeros((), device=next(self.parameters()).device))

    def param_groups(self, weight_decay: float) -> list[ParamGroup]:
        """Matrices with weight decay, biases and norms without: of the language model, of the projector and
        of a trained encoder, each with its rate."""
        parts: list[tuple[str, nn.Module | None, float]] = [
            ("", self.llm, 1.0),
            ("projector ", self.projector, self.projection.lr_scale),
            ("encoder ", self.encoder, self.seen.encoder_lr_scale),
        ]
        return [
            group for name, part, scale in parts if part for group in _groups(name, part, weight_decay, scale)
        ]

    def unsaved(self) -> Sequence[str]:
        """Parameters that no checkpoint holds: the frozen ones of the language model, which a build has from
        where they were published. The job's record names them by a hash."""
        return frozen_names(self, "llm.")

    def ema_pairs(self) -> dict[str, str]:
        """No target copy."""
        return {}

    def ema_momentum(self, progress: float) -> float:
        """Not used without a target copy."""
        return 1.0

    def columns(self) -> Sequence[str]:
        """Columns that `forward` reads."""
        return COLUMNS

    def pictures(self, batch: Batch) -> dict[str, np.ndarray]:
        """None."""
        return {}

    # -- the model --------------------------------------------------------------------------------------

    def logits(self, batch: Batch) -> Tensor:
        """Scores of the next token float32 [K, vocabulary] at the places with a label of a prepared batch."""
        packed = self.chat.packed_tokens is not None
        features_RLW = decoder_of(self.llm)(
            inputs_embeds=self.embeds(batch),
            attention_mask=attention(batch[f"{PREFIX}sample"], packed),
            position_ids=batch[f"{PREFIX}positions"],
            use_cache=False,
        ).last_hidden_state
        chosen_KW = features_RLW.flatten(0, 1)[batch[f"{PREFIX}label_at"]]
        head: nn.Module = self.llm.get_output_embeddings()  # type: ignore[operator]
        scores: Tensor = head(chosen_KW)
        return scores.float()

    def embeds(self, batch: Batch) -> Tensor:
        """Text and scene of a prepared batch in rows [R, L, W], as the blocks of the language model take
        them."""
        embed: nn.Module = self.llm.get_input_embeddings()  # type: ignore[operator]
        embeds_RLW: Tensor = embed(batch[IDS])
        if self.projector is not None:
            scene_nMW = self.projector(self.scene_tokens(batch)).to(embeds_RLW.dtype)
            scene_QW = scene_nMW.flatten(0, 1)[batch[f"{PREFIX}scene_from"]]
            embeds_RLW = placed(embeds_RLW, scene_QW, batch[f"{PREFIX}scene_at"])
        return embeds_RLW

    def scene_tokens(self, batch: Batch) -> Tensor:
        """Tokens [n, M, D] of a prepared batch before the projector, in its dtype; those that a sample has
        come first."""
        assert self.projector is not None
        dtype = next(self.projector.parameters()).dtype
        return arranged(
            self.seen.config,
            self._features(batch).to(dtype),
            batch[SCENE_ROW],
            batch[SEEN],
            batch.get(CELLS),
            batch.get(POSITIONS),
        )

    def _features(self, batch: Batch) -> Tensor:
        """[U, V, E] or [U, V, P, D]: of the trained encoder, or as they were stored."""
        if self.encoder is None:
            stored: Tensor = batch[FEATURES[self.seen.config.tokens]]
            return stored
        points_UVHW3 = point_maps(batch)
        output = self.encoder(points_UVHW3.flatten(0, 1).permute(0, 3, 1, 2))
        wanted: Tensor = output.pooled if self.seen.config.tokens == VIEWS else output.tokens
        return wanted.unflatten(0, points_UVHW3.shape[:2])

    # -- on the host ------------------------------------------------------------------------------------

    def _laid_out(self, batch: Batch, row_tokens: int | None, with_answers: bool) -> Batch:
        prompt_n = self._drawn("situations", self.chat.situations, batch, "prompts")
        answer_n = self._drawn("answers", self.chat.answers, batch, "answers")
        scenes, counts_n, most = self.seen.gather(batch)
        texts = []
        for i, (p, a) in enumerate(zip(prompt_n.tolist(), answer_n.tolist(), strict=True)):
            prompt = batch["prompt"][i, p, : int(batch["prompt_count"][i, p])].numpy()
            length = int(batch["answer_count"][i, a]) if with_answers else 0
            answer = batch["answer"][i, a, :length].numpy()
            texts.append(Text(prompt, int(batch["scene_at"][i]), counts_n[i], answer))
        lengths = torch.tensor([len(text.answer) for text in texts], dtype=torch.float32)
        kept = {k: v for k, v in batch.items() if k not in COLUMNS}
        return {**kept, **scenes, **lay_out(texts, most, row_tokens), f"{PREFIX}label_count": lengths}

    def _drawn(self, tag: str, rule: str, batch: Batch, counts: str) -> Tensor:
        """int64 [n]: which of several; the first in evaluation."""
        counts_n = batch[counts].long()
        if rule != DRAWN or not self.training:
            return torch.zeros_like(counts_n)
        index_n = (uniform((), f"conversation-{tag}", self.seed, read_samples(batch)) * counts_n).long()
        return torch.minimum(index_n, (counts_n - 1).clamp(min=0))  # u * count may round up to count

    def fake_batch(self, n: int, seed: int = 0) -> Batch:
        """Random conversations about random scenes, on the CPU."""
        g, shape = torch.Generator().manual_seed(seed), self.shape
        words = int(self.llm.get_input_embeddings().weight.shape[0])  # type: ignore[operator]

        def ids(*dims: int) -> Tensor:
            return torch.randint(words, (n, *dims), generator=g, dtype=torch.int32)

        def counts(most: int, *dims: int) -> Tensor:
            return torch.randint(1, most + 1, (n, *dims), generator=g, dtype=torch.int32)

        keys = torch.randint(2**62, (n,), generator=g)
        return self.seen.fake(n, seed, g) | {
            "prompt": ids(shape.prompts, shape.prompt_tokens),
            "prompt_count": counts(shape.prompt_tokens, shape.prompts),
            "prompts": counts(shape.prompts),
            "scene_at": torch.zeros(n, dtype=torch.int32),
            "answer": ids(shape.answers, shape.answer_tokens),
            "answer_count": counts(shape.answer_tokens, shape.answers),
            "answers": counts(shape.answers),
            "scene": torch.arange(n, dtype=torch.int32),
            "view": torch.full((n,), WHOLE_SCENE, dtype=torch.int32),
            "agent": torch.eye(3, 4).repeat(n, 1, 1),
            "sample_valid": torch.ones(n, dtype=torch.bool),
            "sample_key": keys,
            "sample_id": [f"fake-{key}" for key in keys.tolist()],
            "epoch": torch.zeros(n, dtype=torch.int64),
        }


def _groups(name: str, part: nn.Module, weight_decay: float, lr_scale: float) -> list[ParamGroup]:
    trained = [p for p in part.parameters() if p.requires_grad]
    matrices = [p for p in trained if p.ndim >= MATRIX]
    others = [p for p in trained if p.ndim < MATRIX]
    return [
        {"name": f"{name}matrices", "params": matrices, "weight_decay": weight_decay, "lr_scale": lr_scale},
        {"name": f"{name}others", "params": others, "weight_decay": 0.0, "lr_scale": lr_scale},
    ]
