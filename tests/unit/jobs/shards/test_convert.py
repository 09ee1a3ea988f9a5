"""A data set of format 1, converted: the same rows, the same order, all its versions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.cli import main
from plinth.data import manifest as manifests
from plinth.data.config import DataConfig, ReaderKind, ShardOptions
from plinth.data.manifest import MANIFEST_KEY, Manifest
from plinth.data.plan import Cursor
from plinth.data.shards import RowGroupReader, write_shard
from plinth.data.sources import OpenSource
from plinth.digests import json_digest
from plinth.errors import DataError
from plinth.storage import Storage
from plinth.world import World
from tests.helpers.datasets import take, toy_table

ROWS = (20, 17, 9)


def as_format_1(storage: Storage) -> None:
    """Turn a manifest that was written without packed columns into one of format 1."""
    content = json.loads(storage.read(MANIFEST_KEY))
    del content["sha256"]
    content["format_version"] = 1
    for shard in content["shards"]:
        assert shard.pop("codecs") == {}
    storage.write(MANIFEST_KEY, json.dumps(content | {"sha256": json_digest(content)}).encode())


def write_old(folder: Path) -> Storage:
    """A data set of format 1 with two versions; the second adds a shard."""
    storage = Storage.from_uri(folder)
    options = ShardOptions(row_group_rows=4, packed=[])
    entries = [
        write_shard(storage, f"part-{i:05d}", toy_table(sum(ROWS[:i]), rows), options)
        for i, rows in enumerate(ROWS)
    ]
    first = Manifest(entries[:2], {"version": 1, "previous": None, "teacher": "t", "schema_version": 1})
    second = Manifest(entries, {**first.attributes, "version": 2})
    for number, build in ((1, first), (2, second)):
        place = storage.child(manifests.version_folder(number))
        if number == 2:
            old_first = manifests.load(storage.child(manifests.version_folder(1)), manifests.CONVERTIBLE)
            build.attributes["previous"] = old_first.hash
        for where in (place, storage):
            manifests.commit(where, build)
            as_format_1(where)
        place.write("rejects.csv", f"version {number}\n".encode())
    storage.write("rejects.csv", b"all\n")
    storage.write("lift/index/x.json", b"{}")
    return storage


def test_everything_comes_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = write_old(tmp_path / "old")
    before = {key: old.read(key) for key, _ in old.list()}
    with pytest.raises(DataError, match=r"format version 1, this program reads 2\. Convert it"):
        manifests.load(old)
    for codec in ("zstd", "lz4", "jxl"):
        new = Storage.from_uri(tmp_path / codec)
        assert main(["shards", "convert", str(tmp_path / "old"), new.uri, "--codec", codec]) == 0
        made = manifests.load(new)
        assert f"{new.uri}: 46 samples in 3 shards" in capsys.readouterr().out
        assert {name for shard in made.shards for name in shard.codecs.values()} == {codec}
        whole = manifests.load(old, manifests.CONVERTIBLE)
        assert [s.row_group_rows for s in made.shards] == [s.row_group_rows for s in whole.shards]
        assert made.columns == whole.columns
        for a, b in zip(whole.shards, made.shards, strict=True):
            assert RowGroupReader(old).read_shard(a).equals(RowGroupReader(new).read_shard(b))
        assert manifests.versions(new) == [1, 2]
        assert made.attributes["previous"] == manifests.load_version(new, 1).hash
        assert len(manifests.load_version(new, 1).shards) == 2
        assert new.read("versions/000002/rejects.csv") == b"version 2\n"
        assert new.read("rejects.csv") == b"all\n"
        assert not new.exists("lift/index/x.json")
    assert {key: old.read(key) for key, _ in old.list()} == before


def test_the_order_is_that_of_the_old_one(tmp_path: Path) -> None:
    old = write_old(tmp_path / "old")
    assert main(["shards", "convert", old.uri, str(tmp_path / "new")]) == 0
    new = Storage.from_uri(tmp_path / "new")
    config = DataConfig(lanes=4, window_row_groups=2, reader=ReaderKind.threads)
    batches = [
        take([OpenSource(storage, build)], config, World(0, 1), Cursor(), 8)
        for storage, build in (
            (old, manifests.load(old, manifests.CONVERTIBLE)),
            (new, manifests.load(new)),
        )
    ]
    for a, b in zip(*batches, strict=True):
        assert a.sample_ids == b.sample_ids
        assert all(bool((a.tensors[n] == b.tensors[n]).all()) for n in ("depth", "pose", "sample_key"))


def test_the_codec_can_be_changed(tmp_path: Path) -> None:
    old, new = write_old(tmp_path / "old"), Storage.from_uri(tmp_path / "new")
    assert main(["shards", "convert", old.uri, str(tmp_path / "jxl"), "--codec", "jxl"]) == 0
    assert main(["shards", "convert", str(tmp_path / "jxl"), new.uri, "--codec", "lz4"]) == 0
    assert main(["shards", "convert", old.uri, str(tmp_path / "straight")]) == 0
    assert manifests.load(new).hash == manifests.load(Storage.from_uri(tmp_path / "straight")).hash


def test_what_cannot_be_converted_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = write_old(tmp_path / "old")
    assert main(["shards", "convert", old.uri, str(tmp_path / "new")]) == 0

    def refused(*arguments: str) -> str:
        capsys.readouterr()
        assert main(["shards", "convert", *arguments]) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1, lines
        return lines[0]

    assert "is a data set already" in refused(old.uri, str(tmp_path / "new"))
    assert "depth_level is 99" in refused(old.uri, str(tmp_path / "newer"), "--level", "99")
    assert not (tmp_path / "newer").exists()
    old.write(MANIFEST_KEY, old.read(MANIFEST_KEY).replace(b'"format_version": 1', b'"format_version": 7'))
    assert "has format version 7, this program reads 2. Build the data set again" in refused(
        old.uri, str(tmp_path / "newer")
    )
