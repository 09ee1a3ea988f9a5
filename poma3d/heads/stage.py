"""The training of a head as a stage: the shape of the platform's `Stage`, which knows nothing of a launcher.

The loss is local to a sample, so nothing is gathered: `forward` gives its sum over the micro-batch's valid
samples and their count. Whatever is drawn (the situation of this epoch, dropout) depends on seed, epoch and
sample alone; `prepare` draws it on the host, before the batch goes to a device.

Where the encoder is trained with the head, or the head sees cells of space, a row names its scene, and
`prepare` brings the scenes of a micro-batch, each once: questions about the same scene share one pass of the
encoder.

Legend: n samples of a micro-batch, U scenes of theirs, V views, M views or cells, E width of a feature, P
patches, K patches of all views, H W pixels, S texts, T tokens, D width of a word, Y hidden width, A answers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from poma3d.heads.config import DRAWN, VIEWS, HeadConfig, ProtocolConfig
from poma3d.heads.network import Answered, AnswerHead, answer_loss, multi_hot
from poma3d.heads.questions import SCENE, QuestionShape
from poma3d.heads.text import TextTower
from poma3d.inputs import Batch, point_maps, read_samples, uniform
from poma3d.network.encoder import PointMapEncoder
from poma3d.seen.config import PATCHES, VOXELS
from poma3d.seen.scenes import AGENT, CELLS, POSITIONS, SCENE_ROW, SEEN, VIEW, WHOLE_SCENE, SeenScenes
from poma3d.seen.tokens import waves
from poma3d.seen.voxels import pool
from poma3d.stages import Contrast, Encoded, ParamGroup

ANSWER = "answer"
SITUATION, KEPT = "drawn/situation", "drawn/head-dropout"
"""Keys of a prepared batch: int64 [n], which text of each sample is asked; float32 [n, Y], dropout."""
CELL_COUNT, PLACES = "scene/cell-count", "scene/places"
"""Of cells: int64 [n], how many a sample has; [n, M, E], sines of their positions in the agent's frame.
`CELLS` is of scenes here, int64 [U, V * P]."""


class QuestionStage(nn.Module):
    """A head and its text tower; `reported` are the names of its loss terms."""

    log_details = False
    """Set by the loop for the steps whose costlier logs it shows."""
    reported = (ANSWER,)

    def __init__(
        self,
        head: HeadConfig,
        protocol: ProtocolConfig,
        tower: TextTower,
        shape: QuestionShape,
        answers: int,
        seed: int,
        seen: SeenScenes | None = None,
    ) -> None:
        """A head with new weights that depend on `seed` alone.

        Args:
            answers: classes, all of which are trained.
            seen: for rows by scene.
        """
        super().__init__()
        self.head_config, self.protocol, self.shape, self.seed = head, protocol, shape, seed
        self.answers = answers
        self.tower: TextTower | None = None if head.inputs == VIEWS else tower
        self.encoder: PointMapEncoder | None = None if seen is None else seen.encoder
        self.seen = seen
        width = shape.embedding if seen is None else seen.width
        places = width if seen is not None and seen.config.tokens == VOXELS else 0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.head = AnswerHead(head, width, tower.width, answers, places)

    def forward(self, batch: Batch, features_only: bool = False) -> Encoded:
        """`sums["answer"]`: the loss over valid samples; with `features_only` only their count."""
        batch = self.prepare(batch)
        valid_n = batch["sample_valid"]
        encoded = Encoded(counts={ANSWER: valid_n.sum()}, weights={ANSWER: 1.0})
        if features_only:
            return encoded
        answered = self.answer(self.encoded(batch), batch[SITUATION], batch.get(KEPT))
        targets_nA = multi_hot(batch["answers"], self.answers)
        losses_n = answer_loss(answered.logits, targets_nA)
        encoded.sums[ANSWER] = (losses_n * valid_n).sum()
        with torch.no_grad():
            best_n1 = answered.logits.argmax(dim=1, keepdim=True)
            right_n = targets_nA.gather(1, best_n1).squeeze(1) * valid_n
            encoded.logs["accuracy"] = right_n.sum() / valid_n.sum().clamp(min=1)
        return encoded

    def prepare(self, batch: Batch) -> Batch:
        """The batch with what is drawn for its samples, and without the words that no text asked has; itself
        if it is so already. Call it before the batch goes to a device."""
        if SITUATION in batch:
            return batch
        chosen_n = self._situations(batch)
        longest = int(batch["token_count"][torch.arange(len(chosen_n)), chosen_n].max())
        prepared = {**batch, SITUATION: chosen_n, "tokens": batch["tokens"][..., :longest]}
        if self.seen is not None:
            whole = torch.full((len(chosen_n),), WHOLE_SCENE, dtype=torch.int32)
            scenes, counts, _ = self.seen.gather({**batch, VIEW: whole})
            prepared |= scenes
            if self.seen.config.tokens == VOXELS:
                # Who asks turns the cells of a scene and changes none: its patches are pooled once for all.
                _, first_U = np.unique(scenes[SCENE_ROW].numpy(), return_index=True)
                prepared |= {CELLS: scenes[CELLS][torch.from_numpy(first_U)]}
                prepared[CELL_COUNT] = torch.tensor(counts)
        kept_nY = self._kept(batch)
        return prepared if kept_nY is None else {**prepared, KEPT: kept_nY}

    def read_ahead(self, batch: Batch) -> None:
        """What `prepare` will need of a batch that comes later; the reading thread calls it."""
        if self.seen is not None and self.seen.scenes is not None:
            self.seen.scenes.read_ahead(sorted(set(batch[SCENE].tolist())))

    def encoded(self, batch: Batch) -> Batch:
        """A prepared batch with `views` [n, M, E] and `view_valid` [n, M] where its rows name scenes; of
        cells also their places [n, M, E]."""
        if self.seen is None:
            return batch
        row_n = batch[SCENE_ROW]
        if self.seen.config.tokens != VOXELS:
            return {**batch, "views": self.encode(batch)[row_n], "view_valid": batch[SEEN]}
        patches_UVPE = batch[PATCHES] if PATCHES in batch else self.encode(batch)
        patches_UKE = patches_UVPE.to(self.head.norm.weight.dtype).flatten(1, 2)
        positions_nM3 = batch[POSITIONS]
        cells_UME = pool(patches_UKE, batch[CELLS], positions_nM3.shape[1])
        places_nME = waves(self.seen.config, positions_nM3, cells_UME.shape[-1]).to(cells_UME.dtype)
        valid_nM = torch.arange(cells_UME.shape[1], device=row_n.device) < batch[CELL_COUNT][:, None]
        return {**batch, "views": cells_UME[row_n], "view_valid": valid_nM, PLACES: places_nME}

    def encode(self, scenes: Batch) -> Tensor:
        """What the trained encoder makes of the geometry of U scenes: projected features [U, V, E], or patch
        tokens [U, V, P, E] where the head sees cells."""
        assert self.encoder is not None
        assert self.seen is not None
        points_UVHW3 = point_maps(scenes)
        output = self.encoder(points_UVHW3.flatten(0, 1).permute(0, 3, 1, 2))
        wanted: Tensor = output.tokens if self.seen.config.tokens == VOXELS else output.pooled
        return wanted.unflatten(0, points_UVHW3.shape[:2])

    def answer(self, batch: Batch, chosen_n: Tensor, keep_nY: Tensor | None = None) -> Answered:
        """Logits of all answers, given which of the texts of each sample is asked."""
        views_nVE = batch["views"].to(self.head.norm.weight.dtype)
        rows = torch.arange(len(chosen_n), device=chosen_n.device)
        counts_n = batch["token_count"][rows, chosen_n]
        tokens_nT = batch["tokens"][rows, chosen_n]
        word_valid_nT = torch.arange(tokens_nT.shape[1], device=counts_n.device) < counts_n[:, None]
        words_nTD = None if self.tower is None else self.tower(tokens_nT.long(), word_valid_nT)
        view_valid_nV = batch["view_valid"].bool()
        return self.head(views_nVE, view_valid_nV, words_nTD, word_valid_nT, keep_nY, batch.get(PLACES))

    def _situations(self, batch: Batch) -> Tensor:
        counts_n = batch["text_count"].long()
        if self.protocol.situations != DRAWN or not self.training:
            return torch.zeros_like(counts_n)
        index_n = (uniform((), "situations", self.seed, read_samples(batch)) * counts_n).long()
        return torch.minimum(index_n, (counts_n - 1).clamp(min=0))  # u * count may round up to count

    def _kept(self, batch: Batch) -> Tensor | None:
        """Dropout's factors float32 [n, Y], each sample's from its own generator."""
        share = 1 - self.head_config.dropout
        if share == 1 or not self.training:
            return None
        drawn_nY = uniform((self.head_config.hidden,), "head-dropout", self.seed, read_samples(batch))
        return (drawn_nY < share).float() / share

    def contrast(self, features: dict[str, Tensor]) -> Contrast:
        """No loss over the global batch."""
        return Contrast(total=torch.zeros((), device=self.head.norm.weight.device))

    def param_groups(self, weight_decay: float) -> list[ParamGroup]:
        """Matrices with weight decay, biases and norms without: of the head and of a trained tower, and, with
        a rate of its own, of a trained encoder."""
        of_encoder = {id(p) for p in self.encoder.parameters()} if self.encoder is not None else set()
        rest = [p for p in self.parameters() if id(p) not in of_encoder]
        groups = _groups("", rest, weight_decay, 1.0)
        if self.encoder is not None and self.seen is not None:
            scale = self.seen.encoder_lr_scale
            groups += _groups("encoder ", list(self.encoder.parameters()), weight_decay, scale)
        return groups

    def ema_pairs(self) -> dict[str, str]:
        """No target copy."""
        return {}

    def ema_momentum(self, progress: float) -> float:
        """Not used without a target copy."""
        return 1.0

    def columns(self) -> Sequence[str]:
        """Columns that `forward` reads."""
        return self.shape.columns

    def fake_batch(self, n: int, seed: int = 0) -> Batch:
        """Random questions about random views, on the CPU."""
        g, shape = torch.Generator().manual_seed(seed), self.shape
        words = self.tower.vocabulary if self.tower is not None else 2
        keys = torch.randint(2**62, (n,), generator=g)
        if self.seen is None:
            seen: Batch = {
                "views": torch.randn(n, shape.views, shape.embedding, generator=g).half(),
                "view_valid": torch.ones(n, shape.views, dtype=torch.uint8),
            }
        else:
            seen = {SCENE: torch.arange(n, dtype=torch.int32)} | self.seen.fake(n, seed, g)
            if self.shape.posed:
                seen[AGENT] = torch.eye(3, 4).repeat(n, 1, 1)
        return {
            **seen,
            "tokens": torch.randint(words, (n, shape.texts, shape.tokens), generator=g, dtype=torch.int32),
            "token_count": torch.randint(
                1, shape.tokens + 1, (n, shape.texts), generator=g, dtype=torch.int32
            ),
            "text_count": torch.randint(1, shape.texts + 1, (n,), generator=g, dtype=torch.int32),
            "answers": torch.randint(-1, self.answers, (n, shape.answers), generator=g, dtype=torch.int32),
            "sample_valid": torch.ones(n, dtype=torch.bool),
            "sample_key": keys,
            "sample_id": [f"fake-{key}" for key in keys.tolist()],
            "epoch": torch.zeros(n, dtype=torch.int64),
        }

    def pictures(self, batch: Batch) -> dict[str, np.ndarray]:
        """None."""
        return {}


def _groups(
    name: str, params: Sequence[nn.Parameter], weight_decay: float, lr_scale: float
) -> list[ParamGroup]:
    trained = [p for p in params if p.requires_grad]
    matrices, others = [p for p in trained if p.ndim > 1], [p for p in trained if p.ndim <= 1]
    return [
        {"name": f"{name}matrices", "params": matrices, "weight_decay": weight_decay, "lr_scale": lr_scale},
        {"name": f"{name}others", "params": others, "weight_decay": 0.0, "lr_scale": lr_scale},
    ]
