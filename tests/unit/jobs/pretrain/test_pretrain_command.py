"""`poma pretrain` refuses what cannot work before anything starts or is written, in one line."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from jobs.cli import main
from jobs.common.datasets import open_dataset
from jobs.common.run_layout import run_storage
from jobs.demo.teacher import train_teacher
from jobs.jobfile import load
from jobs.pretrain.check import check
from jobs.pretrain.config import PretrainJob
from jobs.pretrain.resolve import resolve
from jobs.pretrain.resume import check_resume
from plinth import config
from plinth.data import manifest as manifests
from plinth.errors import CheckpointError
from plinth.launch import fit
from plinth.observe.step_lines import read_lines
from plinth.storage import Storage
from tests.helpers import tiny_jobs
from tests.helpers.tiny_jobs import ingest_job, pretrain_job, write


def refused(folder: Path, capsys: pytest.CaptureFixture[str], *overrides: str, **changes: Any) -> str:
    """What `poma pretrain` refuses the job with, a line for each mistake; checks that nothing was written."""
    job = write(folder / "job.yaml", pretrain_job(folder, **changes))
    capsys.readouterr()
    assert main(["pretrain", job, *overrides]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 or lines[0].endswith(f": {len(lines) - 1} things to mend:"), lines
    assert not (folder / "runs" / "run" / "config.yaml").exists()
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["main.global_batch_size=5"], "global_batch_size 5 is not a multiple of lanes 2"),
        (["warmup.micro_batch_size=3"], "global_batch_size 4 is not a multiple of micro_batch_size 3"),
        (["fit.workers=4"], "4 workers are more than the 2 lanes"),
        (["main.data.lanes=4", "main.global_batch_size=12", "fit.workers=3"], "Use one of"),
        (["main.epochs=1"], "main.epochs is 1.0 and main.steps is 4"),
        (["warmup=null", "main=null"], "neither a warmup nor a main"),
        (["main.data.sources=[]"], "main.data.sources is empty"),
        (["zero.stage=4"], "zero.stage is 4"),
        (["zero.stage=0", "zero.precision=bf16"], "zero.precision bf16 with zero.stage 0"),
        (["main.warmup_steps=9"], "warmup_steps 9 is not less than the stage's 4 steps"),
        (["main.loss.dense=1"], "image_tokens=true"),
        (["main.loss.jepa_distance=euclid"], "chamfer, smooth_l1"),
        (["model.encoder.compile=inductor", "zero.stage=3"], "does not go with zero.stage 3"),
        (["model.encoder.compile=fast"], "use one of none, inductor, aot_eager"),
        (["model.encoder.tuning.mode=adapter"], "encoder.tuning.mode is 'adapter'"),
        (["teacher.source=/nowhere"], "/nowhere"),
        (["teacher.source=/nowhere", "optim.lr=-1"], "optim.lr is -1.0, expected above 0"),
        (["teacher.source=/nowhere", "fit.workers={min: 4, max: 2}"], "fit.workers"),
        (["teacher.source=/nowhere", "model.encoder.tuning.mode=lroa"], "model.encoder.tuning.mode is"),
        (["start=/nowhere/runs/a/warmup"], "has no committed checkpoint"),
        (["teacher.trust_remote_code=true"], "pin it with teacher.revision"),
        (["teacher.revision=0123"], "the job expects teacher.revision 0123"),
        (["storage.access_key_env=AKIA/secret=="], "not shown: it may be a secret"),
    ],
)
def test_contradictions(
    overrides: list[str], words: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in refused(folder, capsys, *overrides)


def test_all_mistakes_are_said_together(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = (
        "optim.lr=-1", "zero.stage=7", "main.epochs=1", "main.global_batch_size=5", "warmup.warmup_steps=500",
        "model.encoder.tuning.mode=lroa", "fit.workers=1", "fit.gpus_per_worker=1",
    )  # fmt: skip
    said = refused(folder, capsys, *wrong).splitlines()
    assert said[0] == "poma pretrain: 7 things to mend:"
    for words in (
        "fit.gpus_per_worker is 1, and this machine has 0 GPUs", "optim.lr is -1", "zero.stage is 7",
        "main.epochs is 1.0 and main.steps is 4", "main: global_batch_size 5 is not a multiple of lanes 2",
        "warmup: warmup_steps 500 is not less than the stage's 4 steps", "model.encoder.tuning.mode is",
    ):  # fmt: skip
        assert sum(words in line for line in said) == 1, words


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("fit.gpus_per_worker=1", "would wait for them for ever"),
        ("fit.cpus_per_worker=1000", "2000 CPUs are needed by 2 workers"),
    ],
)
def test_workers_that_this_machine_cannot_hold_are_refused_before_ray_starts(
    override: str,
    words: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray.init", lambda **_: pytest.fail("Ray was started"))
    assert words in refused(folder, capsys, "fit.workers=2", override)


def test_data_sets_of_different_shapes_are_refused_before_anything_is_written(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rooms, images = folder / "rooms", folder / "images"
    said = refused(folder, capsys, f"main.data.sources=[{{uri: {rooms}}}, {{uri: {images}}}]")
    assert f"main.data.sources: {rooms} and {images} differ in views (2 against 1)." in said
    assert len(said.replace(str(folder), "")) < 300


def test_keys_are_said_as_the_job_has_them(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(folder, capsys, "model.masks.min_context=1000")
    assert "lower model.masks.min_context or model.masks.target_scale_max" in said


def test_data_without_a_teacher_or_of_another(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["ingest", write(folder / "plain.yaml", ingest_job(folder / "plain"))]) == 0
    line = refused(folder, capsys, f"main.data.sources=[{{uri: {folder}/plain}}]")
    assert "has no teacher embeddings yet. Run `poma embed`" in line

    samples = open_dataset(str(folder / "rooms"), load_job(folder).storage).samples()
    other = tiny_jobs.TEACHER.__class__(**{**vars(tiny_jobs.TEACHER), "seed": 1})
    train_teacher(samples, folder / "other", other)
    line = refused(folder, capsys, f"teacher.source={folder}/other")
    assert "was embedded by teacher at" in line
    assert "the job's teacher is other at" in line


def test_a_manifest_of_another_version_or_a_damaged_one(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / "images" / "MANIFEST.json"
    content = json.loads(path.read_text())
    content["format_version"] = 7
    path.write_text(json.dumps(content))
    assert "format version 7, this program reads 2" in refused(folder, capsys)
    path.write_text("{")
    assert "MANIFEST.json is not a manifest" in refused(folder, capsys)


def load_job(folder: Path, *overrides: str) -> PretrainJob:
    path = Path(write(folder / "job.yaml", pretrain_job(folder)))
    return load(PretrainJob, path, overrides)


def notes(folder: Path, *overrides: str) -> dict[str, Any]:
    """What a checkpoint of the main stage would keep of the job."""
    kept: dict[str, Any] = json.loads(json.dumps(resolve(load_job(folder, *overrides))[-1].notes))
    return kept


def stopped_after_a_step(folder: Path) -> PretrainJob:
    """A run that was asked to stop at once, so that it saved after the first step of the warm-up."""
    job = load_job(folder, "fit.workers=0")
    asked = threading.Event()
    asked.set()
    assert fit.launch(check(job, resolve(job)), run_storage(job), asked).is_stopped
    return job


def steps_of(job: PretrainJob, stage: str) -> list[int]:
    return [line["step"] for line in read_lines(run_storage(job).child(stage))]


@pytest.mark.parametrize("free", ["zero.stage=1", "checkpoint.every_steps=1", "main.data.prefetch_batches=4"])
def test_resumed_run_may_change_what_does_not_decide_the_result(free: str, folder: Path) -> None:
    job = stopped_after_a_step(folder)
    assert steps_of(job, "warmup") == [0]
    assert main(["pretrain", str(folder / "job.yaml"), "fit.workers=0", free]) == 0
    assert steps_of(job, "warmup") == list(range(job.warmup.steps or 0)) if job.warmup else False
    assert steps_of(job, "main") == list(range(4))


@pytest.mark.parametrize("free", ["fit.workers=2", "main.data.reader=ray"])
def test_resumed_run_may_change_workers_and_reader(free: str, folder: Path) -> None:
    stopped_after_a_step(folder)
    changed = load_job(folder, free)
    assert check(changed, resolve(changed)).stages[0].notes["config"] == notes_of_first(folder)["config"]


def notes_of_first(folder: Path) -> dict[str, Any]:
    return resolve(load_job(folder))[0].notes


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("seed=1", "seed was 0 and is 1"),
        ("optim.lr=1", "optim.lr was 0.0001 and is 1.0"),
        ("main.loss.jepa=0.1", "loss.jepa was 1.0 and is 0.1"),
        ("main.steps=5", "steps was 4 and is 5"),
        ("model.augment.rotate_z_degrees=5", "model.augment.rotate_z_degrees was 0.0 and is 5.0"),
        ("main.data.lanes=4", "data.lanes was 2 and is 4"),
        ("zero.precision=bf16", "zero.precision was fp32 and is bf16"),
        ("zero.stage=3", "zero.stage was 1 or 2 and is 3"),
        ("zero.stage=0", "zero.stage was 1 or 2 and is 0"),
        ("zero.exact_sums=false", "zero.exact_sums was True and is False"),
    ],
)
def test_a_resumed_run_names_what_changed(
    change: str, words: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = notes(folder), notes(folder, change)
    with pytest.raises(CheckpointError) as caught:
        check_resume(False, before, after)
    assert words in str(caught.value)
    assert "--accept-changes" in str(caught.value)
    check_resume(True, before, after)
    assert words in capsys.readouterr().out


def test_a_run_from_before_zero_was_in_its_identity_resumes_as_it_did(folder: Path) -> None:
    now = notes(folder)
    old = {**now["config"], "precision": "fp32", "exact_sums": True}
    del old["zero"]
    check_resume(False, {**now, "config": old}, now)
    with pytest.raises(CheckpointError, match=r"zero\.precision was bf16 and is fp32\. Go back"):
        check_resume(False, {**now, "config": {**old, "precision": "bf16"}}, now)


@pytest.mark.parametrize(
    "change", ["zero.stage=1", "zero.bucket_size=1000", "fit.workers=2", "checkpoint.every_steps=7"]
)
def test_what_changes_speed_and_memory_only_is_no_change(change: str, folder: Path) -> None:
    assert notes(folder, change) == notes(folder, "zero.stage=2")


def test_a_stage_knows_the_steps_before_it(folder: Path) -> None:
    """Where its curves go on in TensorBoard; no part of what a resumed run must agree in."""
    first, second = resolve(load_job(folder))
    assert (first.steps_before, second.steps_before) == (0, first.total_steps)
    (alone,) = resolve(load_job(folder, "warmup=null"))
    assert alone.steps_before == 0
    assert "steps_before" not in json.dumps(second.notes)


def test_relative_folders_reach_workers_that_run_elsewhere(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absolute = notes(folder)
    monkeypatch.chdir(folder)
    job = load(PretrainJob, Path(write(folder / "job.yaml", pretrain_job(Path()))), [])
    stages = check(job, resolve(job)).stages
    monkeypatch.chdir("/")
    for stage in stages:
        assert stage.build_stage(stage.mixture.sources).columns()
        assert Path(stage.storage.uri).is_absolute()
        assert all(Path(source.uri).is_absolute() for source in stage.data.sources)
    assert stages[-1].notes["config"] == absolute["config"], "where the data lies is free"


def test_driver_opens_each_manifest_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From reading the job to the moment at which training starts."""
    opened: list[str] = []
    load_manifest = manifests.load

    def counted(storage: Storage) -> Any:
        opened.append(storage.uri)
        return load_manifest(storage)

    monkeypatch.setattr(manifests, "load", counted)
    job = load_job(folder)
    check(job, resolve(job))
    assert sorted(opened) == [f"{folder}/images", f"{folder}/rooms"]


def test_other_samples_are_a_change(folder: Path) -> None:
    before = notes(folder)
    with pytest.raises(CheckpointError, match="the data sets hold other samples"):
        check_resume(False, before, {**before, "data": "another"})


def test_the_resolved_job_is_the_job(folder: Path) -> None:
    job = load_job(folder)
    text = config.to_yaml(job)
    assert OmegaConf.create(text).main.steps == 4
    assert "SECRET" not in text


@pytest.mark.slow
def test_the_job_for_a_few_scans_trains(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is shipped, but for the size of these scans and the number of steps."""
    monkeypatch.chdir(folder)
    sizes = ["model.masks.min_context=2", "model.predictor={layers: 1, width: 16, heads: 2}"]
    given = [
        "teacher.source=teacher",
        "main.data.sources=[{uri: rooms}]",
        "main.steps=2",
        "main.warmup_steps=1",
    ]
    assert main(["pretrain", "@own_scans", *given, *sizes]) == 0
    lines = read_lines(Storage.from_uri(folder / "runs/own_scans").child("main"))
    assert [line["step"] for line in lines] == [0, 1]
