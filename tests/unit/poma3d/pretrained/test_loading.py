"""No tensor is made up: the weights of every model are compared with it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CLIPModel, LlavaForConditionalGeneration, SiglipModel

from poma3d.pretrained.loading import load_module, load_transformers
from tests.helpers import tiny
from tests.helpers.lift.tiny_captioner import save_captioner

Tensors = dict[str, torch.Tensor]
KINDS = {"clip": CLIPModel, "siglip": SiglipModel, "captioner": LlavaForConditionalGeneration}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A saved model of each class that is used."""
    root = tmp_path_factory.mktemp("models")
    tiny.clip_model().save_pretrained(root / "clip")
    tiny.siglip_model().save_pretrained(root / "siglip")
    save_captioner(root / "captioner")
    return {kind: root / kind for kind in KINDS}


def changed(folder: Path, into: Path, change: Callable[[Tensors], Tensors]) -> str:
    """A copy of a saved model with other tensors."""
    shutil.copytree(folder, into)
    tensors = change(load_file(folder / "model.safetensors"))
    save_file(tensors, into / "model.safetensors", metadata={"format": "pt"})
    return str(into)


def without(tensors: Tensors, *names: str) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if name not in names}


def every_second(tensors: Tensors) -> Tensors:
    return dict(list(tensors.items())[::2])


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_saved_is_whole_and_equal(kind: str, folders: dict[str, Path]) -> None:
    model = load_transformers(KINDS[kind], str(folders[kind]), "teacher", [])
    again = KINDS[kind].from_pretrained(folders[kind])
    state = again.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("kind", KINDS)
def test_every_second_tensor_missing_is_refused(kind: str, folders: dict[str, Path], tmp_path: Path) -> None:
    source = changed(folders[kind], tmp_path / "x", every_second)
    with pytest.raises(
        ValueError, match=rf"lifter\.source {source} .*\d+ missing \(.* and \d+ more\)"
    ) as caught:
        load_transformers(KINDS[kind], source, "lifter", [])
    assert "lifter.allow_tensors" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("prefix", "cause"), [("module.", "DataParallel"), ("_orig_mod.", "torch.compile")])
def test_the_prefix_of_a_wrapper_is_the_cause(
    kind: str, prefix: str, cause: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    source = changed(folders[kind], tmp_path / "x", lambda ts: {f"{prefix}{n}": t for n, t in ts.items()})
    with pytest.raises(ValueError, match=rf"unexpected \({prefix}.*names begin with '{prefix}', .*{cause}"):
        load_transformers(KINDS[kind], source, "teacher", [])


def test_one_tensor_short_of_another_shape_or_too_many(folders: dict[str, Path], tmp_path: Path) -> None:
    name = "visual_projection.weight"
    cases: dict[str, tuple[Callable[[Tensors], Tensors], str]] = {
        "short": (lambda ts: without(ts, name), rf"1 missing \({name}\)"),
        "shape": (
            lambda ts: {**ts, name: torch.zeros(3, 4)},
            rf"of another shape \({name} \[3, 4\], not \[16, 32\]\)",
        ),
        "more": (lambda ts: {**ts, "head.bias": torch.zeros(2)}, r"1 unexpected \(head\.bias\)"),
    }
    for key, (change, words) in cases.items():
        source = changed(folders["clip"], tmp_path / key, change)
        with pytest.raises(ValueError, match=words):
            load_transformers(CLIPModel, source, "teacher", [])
        load_transformers(CLIPModel, source, "teacher", ["visual_*", "head.bias"])


def test_what_a_job_allows_to_be_missing_is_the_same_for_all(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    source = changed(folders["clip"], tmp_path / "x", lambda ts: without(ts, "visual_projection.weight"))
    first, second = (
        load_transformers(CLIPModel, source, "teacher", ["visual_projection.*"]) for _ in range(2)
    )
    name = "visual_projection.weight"
    assert torch.equal(first.get_parameter(name), second.get_parameter(name))


def test_another_architecture_is_named(folders: dict[str, Path], tmp_path: Path) -> None:
    source = str(shutil.copytree(folders["siglip"], tmp_path / "x"))
    shutil.copy(folders["clip"] / "config.json", tmp_path / "x" / "config.json")
    with pytest.raises(ValueError, match="another architecture"):
        load_transformers(CLIPModel, source, "teacher", [])


def test_computed_buffers_and_tied_weights_are_no_false_alarm(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    def older(tensors: Tensors) -> Tensors:
        """As published CLIPs are: positions were buffers that were saved."""
        at = "model.embeddings.position_ids"
        return {**tensors, f"text_{at}": torch.arange(16)[None], f"vision_{at}": torch.arange(37)[None]}

    for kind in ("clip", "siglip"):
        load_transformers(KINDS[kind], changed(folders[kind], tmp_path / kind, older), "teacher", [])
    tied = LlavaForConditionalGeneration.from_pretrained(folders["captioner"])
    config = json.loads((folders["captioner"] / "config.json").read_text())
    config["tie_word_embeddings"] = config["text_config"]["tie_word_embeddings"] = True
    (head,) = [n for n in load_file(folders["captioner"] / "model.safetensors") if "lm_head" in n]
    source = changed(folders["captioner"], tmp_path / "tied", lambda ts: without(ts, head))
    (tmp_path / "tied" / "config.json").write_text(json.dumps(config))
    model: Any = load_transformers(LlavaForConditionalGeneration, source, "captioner", [])
    assert torch.equal(model.get_output_embeddings().weight, tied.get_input_embeddings().weight)


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float32])
def test_the_precision_is_what_is_stated_not_what_is_stored(stored: torch.dtype, tmp_path: Path) -> None:
    tiny.clip_model().to(stored).save_pretrained(tmp_path)
    assert {p.dtype for p in load_transformers(CLIPModel, str(tmp_path), "x", []).parameters()} == {
        torch.float32
    }
    half = load_transformers(CLIPModel, str(tmp_path), "x", [], torch.bfloat16)
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}


class Tied(nn.Module):
    """Two names of one tensor, a buffer that is saved and one that is not."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
        self.second.weight = self.first.weight
        self.register_buffer("kept", torch.zeros(1))
        self.register_buffer("computed", torch.ones(1), persistent=False)


def test_modules_of_any_kind_are_filled_whole(tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    tensors = {"second.weight": torch.eye(2, dtype=torch.float16), "kept": torch.full((1,), 5.0)}
    save_file(tensors, weights)
    module = Tied()
    load_module(module, [weights], str(weights))
    assert torch.equal(module.first.weight.data, torch.eye(2))
    assert module.kept.tolist() == [5.0]
    save_file(without(tensors, "kept"), weights)
    with pytest.raises(
        ValueError, match=rf"^{weights} does not hold the tensors of Tied: 1 missing \(kept\)"
    ):
        load_module(Tied(), [weights], str(weights))
    save_file({"kept": torch.zeros(2)}, weights)
    with pytest.raises(ValueError, match=r"2 missing \(first.weight, second.weight\), 1 of another shape"):
        load_module(Tied(), [weights], str(weights))
    load_module(Tied(), [weights], str(weights), allowed=["*"])
    weights.write_bytes(b"no tensors")
    with pytest.raises(ValueError, match="cannot be loaded"):
        load_module(Tied(), [weights], str(weights))
