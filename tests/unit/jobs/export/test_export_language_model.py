"""`poma export --format transformers` of a run of a language model: merged, with adapters apart, refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoProcessor

from jobs.cli import main
from jobs.common.datasets import open_dataset
from jobs.finetune.llm import conversations
from jobs.finetune.llm.answers import answers, open_run, read_job
from plinth.checkpoint import save_load
from plinth.storage import Storage, StorageOptions
from poma3d import export
from poma3d.inputs import point_maps
from poma3d.llm.generate import ask
from tests.helpers.downstream import handed_on, heads, llm
from tests.helpers.downstream.llm_jobs import NEW, job_of, run
from tests.helpers.tiny_jobs import write

OPTIONS = StorageOptions()
ASKED, TOKENS = 6, 8


def exported(of: Path, output: Path, *words: str) -> int:
    job = {"kind": "export", "run": str(of), "output": str(output), "format": "transformers"}
    return main(["export", write(output.parent / f"{output.name}.yaml", job), *words])


def points_of(home: Path, scene_id: str) -> torch.Tensor:
    (sample,) = [s for s in open_dataset(str(home / "rooms"), OPTIONS).samples() if s.scene_id == scene_id]
    columns = ("depth", "depth_scale", "intrinsics", "pose")
    return point_maps({name: torch.as_tensor(getattr(sample, name))[None] for name in columns})


def check_answers(home: Path, of: Path, folder: Path) -> None:
    """Plain transformers says what `poma ask` and `poma generate` say."""
    job = read_job(str(of), OPTIONS)
    opened = open_run(str(of), OPTIONS, job.train, "train")
    asked = conversations.read(job.train.conversations[0], " ", None, OPTIONS, "train")[:ASKED]
    model, processor = AutoModelForCausalLM.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    first = asked[0]
    number = opened.setup.numbers.numbers[first.scene_id]
    given = ask(opened.stage, handed_on.batch_of(opened.chat, first.texts[:1], [number])).inputs_embeds
    inputs = processor(first.texts[0], xyz=points_of(home, first.scene_id))
    of_text = [inputs[name] for name in ("input_ids", "attention_mask", "scene_at")]
    found, _ = model.embeds(*of_text, inputs["point_maps"], None)
    torch.testing.assert_close(found, given, atol=1e-3, rtol=1e-3)  # features are stored in 16 bits
    for conversation, text in answers(opened, asked, batch_size=4, max_tokens=TOKENS):
        inputs = processor(conversation.texts[0], xyz=points_of(home, conversation.scene_id))
        found = model.generate(**inputs, max_new_tokens=TOKENS)
        assert processor.answers(found) == [text]


def test_a_merged_run_answers_in_plain_transformers(
    llm_home: Path, trained_llm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["card.license=apache-2.0", "card.data_licenses=[{data: rooms, license: CC0-1.0}]"]
    assert exported(trained_llm / "llm", tmp_path / "out", *words) == 0
    assert "AutoModelForCausalLM.from_pretrained" in capsys.readouterr().out
    check_answers(llm_home, trained_llm / "llm", tmp_path / "out")
    assert AutoConfig.from_pretrained(tmp_path / "out").feature_dtype == "float16", "as features are stored"
    card = ModelCard.load(tmp_path / "out/README.md")
    assert (card.data.license, card.data.library_name) == ("apache-2.0", "transformers")
    for part in (
        "| base model | `model`, revision `",
        "| LoRA: rank, alpha, dropout | 2, 4, 0 |",
        "| run | `llm/training step 4` |",
        "| conversations | `rooms` | none | `110 conversations about 8 scenes` |",
        "`CC0-1.0` |",
        "| `token_accuracy` | ",
        "| sha256 of model.safetensors | `",
    ):
        assert part in card.text
    texts = "".join(
        path.read_text() for path in (tmp_path / "out").iterdir() if path.suffix != ".safetensors"
    )
    assert str(llm_home) not in texts
    assert str(trained_llm) not in texts
    assert exported(trained_llm / "llm", tmp_path / "out") == 0, "over an earlier export of the same format"
    before = sorted(path.name for path in (tmp_path / "out").iterdir())
    capsys.readouterr()
    assert exported(trained_llm / "llm", tmp_path / "out", "adapters=separate") == 2
    refused(capsys, "holds something else (README.md, ")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == before


def test_adapters_apart_are_those_of_the_checkpoint(
    llm_home: Path, trained_llm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exported(trained_llm / "llm", tmp_path / "out", "adapters=separate") == 0
    checkpoints = Storage.from_uri(trained_llm / "llm/training/checkpoints")
    weights = save_load.read_full(checkpoints, tmp_path / "scratch")
    tuned = PeftModel.from_pretrained(llm.network(llm.QWEN3_VL), tmp_path / "out")
    state = tuned.get_base_model().state_dict()
    trained = {name.removeprefix("llm."): w for name, w in weights.items() if name.startswith("llm.")}
    assert trained
    assert all(torch.equal(w, state[name]) for name, w in trained.items())
    projector = load_file(tmp_path / "out/projector.safetensors")
    assert all(torch.equal(w, weights[f"projector.{name}"]) for name, w in projector.items())
    encoder = export.load(tmp_path / "out/encoder")
    assert export.weights_digest(encoder) == export.weights_digest(export.load(llm_home / "encoder"))
    assert ModelCard.load(tmp_path / "out/README.md").data.library_name == "peft"
    assert exported(trained_llm / "llm", tmp_path / "out", "adapters=separate") == 0
    capsys.readouterr()
    assert exported(trained_llm / "llm", tmp_path / "out") == 2
    refused(capsys, "holds something else (README.md, ")


def test_new_weights_with_their_encoder_go_merged(
    llm_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = {
        "scenes": [str(llm_home / "rooms")],
        "conversations": [{"kind": "rooms", "annotations": [str(llm_home / "rooms/questions.jsonl")]}],
    }
    training = {**job_of(llm_home, tmp_path)["training"], "steps": 2}
    encoder = {"source": str(llm_home / "encoder"), "lr": 1e-2}
    assert run(llm_home, tmp_path, llm=NEW, encoder=encoder, train=train, training=training) == 0
    assert exported(tmp_path / "llm", tmp_path / "out") == 0
    check_answers(llm_home, tmp_path / "llm", tmp_path / "out")
    assert AutoConfig.from_pretrained(tmp_path / "out").feature_dtype == "float32", "of its own encoder"
    assert "| base model | none: trained from new weights |" in (tmp_path / "out/README.md").read_text()
    capsys.readouterr()
    for words, says in (
        (["adapters=separate"], "(llm.tune=full) has no adapters. Use adapters=merged"),
        ([f"encoder={llm_home / 'encoder'}"], "was trained with its own encoder. Leave it out"),
    ):
        assert exported(tmp_path / "llm", tmp_path / "x", *words) == 2
        refused(capsys, says)


def refused(capsys: pytest.CaptureFixture[str], says: str) -> None:
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert says in line


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["stage=heads"], "A run of a language model has training alone"),
        (["weights=student"], "has one model. Leave it out"),
        (["step=3"], "no committed checkpoint of step 3"),
        (["encoder=nowhere"], "nowhere is not a folder"),
        (["adapters=both"], "adapters"),
    ],
)
def test_mistakes_in_the_job_are_one_line(
    trained_llm: Path, tmp_path: Path, words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert exported(trained_llm / "llm", tmp_path / "out", *words) == 2
    refused(capsys, says)


def test_other_models_runs_and_encoders_are_refused(
    llm_home: Path, trained_llm: Path, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "llm"
    shutil.copytree(trained_llm / "llm", mine)
    other = llm.write_model(tmp_path / "other", llm.QWEN3_VL)
    llm.network(llm.QWEN3_VL, seed=1).save_pretrained(other)
    job = (mine / "config.yaml").read_text()
    assert str(llm_home / "model") in job
    (mine / "config.yaml").write_text(job.replace(str(llm_home / "model"), str(other)))
    stranger = export.load(llm_home / "encoder")
    stranger.vit.patch_embed.gain *= 2
    export.save(stranger, tmp_path / "stranger")
    head = tmp_path / "head"
    head.mkdir()
    write(head / "config.yaml", heads.finetune_job(home))
    empty = tmp_path / "empty"
    shutil.copytree(trained_llm / "llm", empty)
    shutil.rmtree(empty / "training/checkpoints")
    newer = tmp_path / "newer"
    newer.mkdir()
    (newer / "config.yaml").write_text(f"{job}novel: 1\n")
    cases: list[tuple[Path, list[str], str]] = [
        (mine, [], "was trained on"),
        (trained_llm / "llm", [f"encoder={tmp_path / 'stranger'}"], "was trained on features of"),
        (head, [], "it has no encoder of its own"),
        (head, ["adapters=separate"], "adapters is of a run of a language model"),
        (llm_home / "encoder", [f"encoder={home / 'encoder'}"], "encoder is of a run of a language model"),
        (trained_llm / "llm", ["adapters=separate", "format=poma3d"], "adapters is of a run of a language"),
        (empty, [], "no committed checkpoint"),
        (newer, [], "novel"),
        (trained_llm / "llm", ["format=poma3d"], "whose encoder was frozen"),
        (tmp_path / "nowhere", [], "nowhere"),
    ]
    for of, words, says in cases:
        capsys.readouterr()
        assert exported(of, tmp_path / "out", *words) == 2, says
        refused(capsys, says)
