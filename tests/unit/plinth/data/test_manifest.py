"""The manifest: written last, refused when it is not what it says, never naming wrong shards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from plinth.data import manifest
from plinth.data.manifest import MANIFEST_KEY, Manifest
from plinth.data.shards import refuse_incomplete, verify, write_shard
from plinth.data.sources import open_source
from plinth.errors import DataError
from plinth.storage import Storage, StorageOptions
from tests.helpers.datasets import SHAPES, make_data_set, toy_table


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage.from_uri(tmp_path)


def test_it_comes_back_with_the_same_hash(storage: Storage) -> None:
    written = make_data_set(storage).manifest
    read = manifest.load(storage)
    assert read == written
    assert read.hash == written.hash
    assert read.rows == 46
    assert read.columns["depth"].startswith("fixed_size_binary[18432] dtype=uint16 shape=[2, 96, 48]")
    assert read.attributes == {"schema_version": 1, "teacher": "tiny"}


def test_attributes_that_json_rewrites(storage: Storage) -> None:
    entry = write_shard(storage, "part-00000", toy_table(0, 3))
    manifest.commit(storage, Manifest([entry], {"counts": {2: "b", 10: "a"}, "size": (1, 2)}))
    assert manifest.load(storage).attributes == {"counts": {"2": "b", "10": "a"}, "size": [1, 2]}


def test_the_hash_tells_data_sets_apart(tmp_path: Path) -> None:
    def build(folder: str, **change: object) -> str:
        return make_data_set(tmp_path / folder, **change).manifest.hash  # type: ignore[arg-type]

    assert build("a") == build("b")
    others = [build("c", shard_rows=(20, 17)), build("d", name="other"), build("e", row_group_rows=5)]
    others.append(build("f", attributes={"teacher": "huge"}))
    assert len({build("a"), *others}) == 5


def test_a_rewrite_keeps_the_old_data_set_until_it_is_done(storage: Storage) -> None:
    old = make_data_set(storage).manifest
    entry = write_shard(storage, "part-00000", toy_table(500, 20))
    assert manifest.load(storage) == old, "the manifest is written last"
    assert verify(storage, old) == [], "its shards are not touched"
    new = Manifest([entry])
    manifest.commit(storage, new)
    assert manifest.load(storage) == new
    assert verify(storage, new) == []
    removed = manifest.prune(storage, new)
    assert sorted(removed) == sorted(shard.name for shard in old.shards)
    assert [key for key, _ in storage.list()] == [MANIFEST_KEY, entry.name]


def test_writing_the_same_rows_again_changes_nothing(storage: Storage) -> None:
    first = make_data_set(storage).manifest
    objects = storage.list()
    assert make_data_set(storage).manifest == first
    assert storage.list() == objects


def test_no_manifest_is_no_data_set(storage: Storage) -> None:
    write_shard(storage, "part-00000", toy_table(0, 3))
    with pytest.raises(DataError, match=r"not a finished data set: there is no MANIFEST.json"):
        manifest.load(storage)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not a manifest"),
        ("[]", "is not a manifest"),
        ('{"format_version": 2}', "is not a manifest .KeyError"),
        ('{"format_version": 1}', r"format version 1, this program reads 2. Convert it: poma shards convert"),
        ('{"format_version": 99}', "format version 99, this program reads 2. Build the data set again"),
    ],
)
def test_manifests_that_cannot_be_read(storage: Storage, text: str, message: str) -> None:
    storage.write(MANIFEST_KEY, text.encode())
    with pytest.raises(DataError, match=message):
        manifest.load(storage)


def test_no_flipped_byte_goes_unnoticed(storage: Storage) -> None:
    """But for white space: a run that read another number would train in another order."""
    written = make_data_set(storage, (4,)).manifest
    content, named = storage.read(MANIFEST_KEY), 0
    for offset in range(0, len(content), 3):
        altered = bytearray(content)
        altered[offset] ^= 1 << offset % 7
        storage.write(MANIFEST_KEY, bytes(altered))
        try:
            read = manifest.load(storage)
        except DataError as error:
            named += MANIFEST_KEY in str(error)
        else:
            assert read == written, offset
    assert named > len(content) // 3 // 2, "most bytes matter"


def test_shards_that_do_not_belong_together(storage: Storage) -> None:
    entry = write_shard(storage, "a", toy_table(0, 3))
    other = write_shard(storage, "b", toy_table(0, 3, shapes={**SHAPES, "pose": ("float64", (3, 4))}))
    with pytest.raises(DataError, match=r"differ in pose .*float32.* against .*float64"):
        manifest.commit(storage, Manifest([entry, other]))
    with pytest.raises(DataError, match="is listed twice"):
        manifest.commit(storage, Manifest([entry, entry]))
    assert not storage.exists(MANIFEST_KEY)


def test_the_file_can_be_read_by_people(storage: Storage) -> None:
    make_data_set(storage)
    content = json.loads(storage.read(MANIFEST_KEY))
    assert content["shards"][0]["row_group_rows"] == [4] * 5
    assert "columns" not in content["shards"][0], "columns are said once"


def test_a_version_is_named_after_the_data_set(tmp_path: Path) -> None:
    assert manifest.split_version("s3://b/images#3") == ("s3://b/images", 3)
    for plain in ("s3://b/images", "a#b/images", "images#", "images#new"):
        assert manifest.split_version(plain) == (plain, None)
    assert manifest.with_version("images", 12) == "images#12"
    newest = make_data_set(tmp_path)
    storage = newest.storage
    with pytest.raises(DataError, match=r"has no version 1; there are none: its builds are not kept"):
        open_source(f"{tmp_path}#1", StorageOptions())
    first = Manifest(newest.manifest.shards[:1], newest.manifest.attributes)
    manifest.commit(storage.child(manifest.version_folder(1)), first)
    manifest.commit(storage.child(manifest.version_folder(2)), newest.manifest)
    assert manifest.versions(storage) == [1, 2]
    opened = open_source(f"{tmp_path}#1", StorageOptions())
    assert (opened.manifest, opened.storage) == (first, storage)
    assert verify(opened.storage, opened.manifest) == [], "names of shards are relative to the data set"
    assert open_source(str(tmp_path), StorageOptions()).manifest == newest.manifest
    with pytest.raises(DataError, match=r"has no version 3; there are 1, 2"):
        open_source(f"{tmp_path}#3", StorageOptions())


def test_a_data_set_is_complete_when_its_shards_are_there_at_their_sizes(storage: Storage) -> None:
    written = make_data_set(storage).manifest
    refuse_incomplete(storage, written, "")
    first, second, *_ = (shard.name for shard in written.shards)
    storage.delete(first)
    storage.write(second, storage.read(second) + b"x")
    said = f"2 of {len(written.shards)} shards are damaged, the first is {first}: missing.* Restore them"
    with pytest.raises(DataError, match=said):
        refuse_incomplete(storage, written, "Restore them.")
    storage.write(first, b"")
    with pytest.raises(DataError, match=f"{first}: truncated .0 bytes"):
        refuse_incomplete(storage, written, "")
