"""A language model that answers from a scene, as a model of transformers.

    point maps -> encoder -> scene tokens -> projector -+
    question -> token ids -> embedding ---- in one row --+-> blocks -> next token

Legend: n questions, B scenes (n, or one for all), V views, H W pixels of the encoder's grid, T tokens of a
question, L places of a row, W width of the language model.
"""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, GenerationMixin

from poma3d.auto.language.config import Poma3dLlmConfig
from poma3d.auto.whole import WholeModel
from poma3d.export.encoder import encode
from poma3d.export.fields import GAIN, shape_of
from poma3d.llm.config import CAUSAL
from poma3d.llm.layout import PREFIX, Text, ending_together, lay_out, placed
from poma3d.llm.model import ATTENTION, IGNORED, drop_towers, new_projector, width_of
from poma3d.network.vit import VisionTransformer
from poma3d.seen.config import PATCHES, VIEWS, VOXELS
from poma3d.seen.tokens import arranged
from poma3d.seen.voxels import AXES, Cells, cells, in_agent_frame, patch_points

CHUNK_VIEWS = 256
"""Views that pass through the encoder at once, as in `poma features`."""
ROUNDED = {"float16": torch.float16, "float32": torch.float32}


class Poma3dLlm(WholeModel, GenerationMixin):
    """Scenes and questions -> answers.

    `generate` takes what the processor returns and everything that transformers' `generate` does; it returns
    the answers' token ids alone, as for any model that is given embeddings.
    """

    config_class = Poma3dLlmConfig
    base_model_prefix = "poma3d_llm"
    main_input_name = "input_ids"
    _no_split_modules = ["Block", "AttentionPool"]  # noqa: RUF012 - transformers declares it as a list
    _keep_in_fp32_modules_strict = ["projector", "vit"]  # noqa: RUF012 - as in training
    _supports_sdpa = True

    def __init__(self, config: Poma3dLlmConfig) -> None:
        super().__init__(config)
        self.llm = new_llm(config)
        self.projector: nn.Sequential | None = None
        self.vit: VisionTransformer | None = None
        if config.encoder is not None:
            self.projector = new_projector(config.encoder_width, config.projector_width, width_of(self.llm))
            self.vit = VisionTransformer(shape_of(config.encoder), config.encoder[GAIN])
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The language model's."""
        found: nn.Module = self.llm.get_input_embeddings()  # type: ignore[operator]
        return found

    def get_output_embeddings(self) -> nn.Module:
        """The language model's."""
        found: nn.Module = self.llm.get_output_embeddings()  # type: ignore[operator]
        return found

    def get_decoder(self) -> nn.Module:
        """The blocks of the language model."""
        found: nn.Module = self.llm.get_decoder()  # type: ignore[operator]
        return found

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        scene_at: Tensor,
        point_maps: Tensor | None = None,
        agent: Tensor | None = None,
        rgb: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """Scores of the next token at every place of the rows [n, L, vocabulary], padded in front, as the
        language model's own class returns them, with its loss where there are labels. Gradients go through.

        Args:
            input_ids: int64 [n, T] questions in the words of the chat template, without the scene.
            attention_mask: int64 [n, T], 0 where nothing stands.
            scene_at: int64 [n], before which token of a question its scene stands.
            point_maps: floating [B, V, H, W, 3], world coordinates in metres, z-up, (0, 0, 0) where there is
                none; a view without any point is not seen.
            agent: float32 [n, 3, 4], world -> agent; unit where there is no pose.
            rgb: not read.
            labels: int64 [n, T], the token at each place of `input_ids` that is to be learned, else -100, as
                the processor makes them of `answer=`; scenes are not learned.

        Raises:
            ValueError: scenes that are missing, not asked for, or of another number than the questions;
                labels of another shape than `input_ids`.
        """
        embeds_nLW, mask_nL = self.embeds(input_ids, attention_mask, scene_at, point_maps, agent)
        if labels is not None:
            if labels.shape != input_ids.shape:
                raise ValueError(f"labels is {list(labels.shape)}, expected {list(input_ids.shape)}")
            kwargs["labels"] = _with_scenes(labels, attention_mask, scene_at, mask_nL)
        positions_nL = (mask_nL.cumsum(dim=1) - 1).clamp(min=0)
        return self.llm(inputs_embeds=embeds_nLW, attention_mask=mask_nL, position_ids=positions_nL, **kwargs)

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        scene_at: Tensor,
        point_maps: Tensor | None = None,
        agent: Tensor | None = None,
        rgb: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """The answers' token ids, int64 [n, most], as transformers' `generate` of the language model gives
        them; see `forward` for the arguments, and transformers for the others.
        """
        embeds_nLW, mask_nL = self.embeds(input_ids, attention_mask, scene_at, point_maps, agent)
        kwargs.setdefault("generation_config", self.generation_config)
        llm: Any = self.llm
        return llm.generate(inputs_embeds=embeds_nLW, attention_mask=mask_nL, **kwargs)

    def embeds(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        scene_at: Tensor,
        point_maps: Tensor | None,
        agent: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Questions with their scenes in rows [n, L, W] that end together, and where something stands, int64
        [n, L]; see `forward`."""
        ids = [row[there.bool()].cpu().numpy() for row, there in zip(input_ids, attention_mask, strict=True)]
        scene_nMW, counts, most = self._scenes(len(ids), point_maps, agent)
        texts = [
            Text(row, at, count, row[:0])
            for row, at, count in zip(ids, scene_at.tolist(), counts, strict=True)
        ]
        laid = {name: tensor.to(self.device) for name, tensor in lay_out(texts, most).items()}
        embeds_nLW: Tensor = self.get_input_embeddings()(laid[f"{PREFIX}ids"])
        if scene_nMW is not None:
            scene_QW = scene_nMW.to(embeds_nLW.dtype).flatten(0, 1)[laid[f"{PREFIX}scene_from"]]
            embeds_nLW = placed(embeds_nLW, scene_QW, laid[f"{PREFIX}scene_at"])
        return ending_together(embeds_nLW, (laid[f"{PREFIX}sample"] >= 0).long())

    def _scenes(
        self, n: int, point_maps: Tensor | None, agent: Tensor | None
    ) -> tuple[Tensor | None, list[int], int]:
        """Scene tokens [n, M, W] behind the projector, how many each question has, and M."""
        if self.vit is None or self.projector is None:
            if point_maps is not None:
                raise ValueError("this model looks at no scene (scene.tokens is none): leave out point_maps")
            return None, [0] * n, 0
        if point_maps is None:
            raise ValueError("point_maps is missing: give the processor a scene")
        if point_maps.ndim != 5 or len(point_maps) not in (1, n):
            raise ValueError(
                f"point_maps is {list(point_maps.shape)} for {n} questions, expected [1 or {n}, V, H, W, 3]"
            )
        config, dtype = self.config.scene_tokens, next(self.projector.parameters()).dtype
        found = encode(self.vit, point_maps.to(self.device), CHUNK_VIEWS)
        features_B = found.projected if config.tokens == VIEWS else found.tokens
        features_B = features_B.to(ROUNDED[self.config.feature_dtype]).to(dtype)
        row_n = torch.arange(n) if len(point_maps) == n else torch.zeros(n, dtype=torch.long)
        seen_nV = (point_maps != 0).flatten(2).any(dim=2).cpu()[row_n]
        per_view = features_B.shape[2] if config.tokens == PATCHES else 1
        counts, places = (seen_nV.sum(dim=1) * per_view).tolist(), None
        cells_nK = positions_nM3 = None
        if config.tokens == VOXELS:
            places = self._cells(point_maps.cpu(), features_B.shape[2], row_n.tolist(), seen_nV)
            counts = [len(each.positions) for each in places]
            cells_nK = torch.stack([torch.from_numpy(each.of_patch) for each in places])
            positions_nM3 = torch.zeros(n, max(1, *counts), AXES)
            for i, (each, turn) in enumerate(zip(places, _agents(agent, n), strict=True)):
                turned = in_agent_frame(each.positions, turn.numpy())
                positions_nM3[i, : counts[i]] = torch.from_numpy(turned)
        of_samples = [None if t is None else t.to(self.device) for t in (cells_nK, positions_nM3)]
        tokens_nMD = arranged(config, features_B, row_n.to(self.device), seen_nV.to(self.device), *of_samples)
        scene_nMW: Tensor = self.projector(tokens_nMD)
        return scene_nMW, counts, scene_nMW.shape[1]

    def _cells(self, points: Tensor, patches: int, row_n: list[int], seen_nV: Tensor) -> list[Cells]:
        config = self.config.scene_tokens
        known: dict[int, Cells] = {}
        for row, seen in zip(row_n, seen_nV, strict=True):
            if row not in known:
                places = patch_points(points[row].float(), patches)
                known[row] = cells(places, seen.numpy(), config.cell_m, config.max_voxels)
        return [known[row] for row in row_n]


def new_llm(config: Poma3dLlmConfig) -> nn.Module:
    """The language model with new weights, without an image tower.

    Raises:
        ValueError: transformers does not know its class.
    """
    said = dict(config.llm)
    kind = said.pop("model_type")
    if kind not in CONFIG_MAPPING:
        raise ValueError(
            f"config.json: llm.model_type is {kind!r}, which transformers {transformers.__version__} does "
            "not know: install the version that the model card names"
        )
    theirs = CONFIG_MAPPING[kind](**said)
    theirs._attn_implementation = ATTENTION
    classes: Any = (
        transformers.MODEL_FOR_CAUSAL_LM_MAPPING
        if config.llm_class == CAUSAL
        else transformers.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    )
    made: nn.Module = classes[type(theirs)](theirs)
    drop_towers(made)
    return made


def _with_scenes(labels: Tensor, attention_mask: Tensor, scene_at: Tensor, mask_nL: Tensor) -> Tensor:
    """Labels [n, T] of questions -> [n, L] of rows that end together, with scenes in them."""
    made_nL = torch.full_like(mask_nL, IGNORED)
    begins = mask_nL.shape[1] - mask_nL.sum(dim=1)
    for i, at in enumerate(scene_at.tolist()):
        of_text = labels[i][attention_mask[i].bool()].to(made_nL.device)
        made_nL[i, begins[i] : begins[i] + at] = of_text[:at]
        made_nL[i, made_nL.shape[1] - (len(of_text) - at) :] = of_text[at:]
    return made_nL


def _agents(agent: Tensor | None, n: int) -> Tensor:
    """float32 [n, 3, 4] on the CPU.

    Raises:
        ValueError: another shape.
    """
    if agent is None:
        return torch.eye(3, 4).repeat(n, 1, 1)
    if agent.shape != (n, 3, 4):
        raise ValueError(f"agent is {list(agent.shape)}, expected [{n}, 3, 4]")
    return agent.float().cpu()
