"""Samples of a step are found where they are stored, and only what the step's windows hold is read."""

from __future__ import annotations

from pathlib import Path

from plinth.data.bad_rows import place_id
from plinth.data.config import DataConfig
from plinth.data.locate import SampleLocation, locate
from plinth.data.plan import Cursor, global_batch
from plinth.data.sources import mix
from tests.helpers.datasets import GLOBAL_BATCH, SEED, make_data_set

CONFIG = DataConfig(lanes=4, window_row_groups=2)


def test_every_sample_of_a_step(tmp_path: Path) -> None:
    sources = [
        make_data_set(tmp_path / "a"),
        make_data_set(tmp_path / "b", (7, 8), 5, name="other", weight=1.5),
    ]
    mixture = mix(CONFIG, sources, SEED, GLOBAL_BATCH)
    plan = mixture.plan
    for cursor in (Cursor(), Cursor(0, plan.steps_per_epoch - 1), Cursor(2, 1)):
        expected = {}
        for source, row_group, row, _ in global_batch(plan, cursor).tolist():
            groups = [(s, g) for s in sources[source].manifest.shards for g in range(len(s.row_group_rows))]
            shard, group = groups[row_group]
            first = sum(s.row_group_rows[g] for s, g in groups[:row_group])
            sample_id = f"{('toy', 'other')[source]}-{first + row}"
            expected[sample_id] = SampleLocation(
                sample_id, f"{sources[source].storage.uri}/{shard.name}", group
            )
        found = locate(mixture, cursor, list(expected))
        assert {location.sample_id: location for location in found} == expected
        assert len(found) == len(expected)
        assert locate(mixture, cursor, ["toy-nowhere"]) == []
        wanted = sorted(expected)[2]
        assert locate(mixture, cursor, ["toy-nowhere", wanted]) == [expected[wanted]]


def test_rows_that_cannot_be_read_are_known_by_their_place(tmp_path: Path) -> None:
    source = make_data_set(tmp_path)
    mixture = mix(CONFIG, [source], SEED, GLOBAL_BATCH)
    plan = mixture.plan
    source_rows = global_batch(plan, Cursor())[:, 1:3].tolist()
    row = next(row for group, row in source_rows if group < 5)
    group = next(group for group, _ in source_rows if group < 5)
    shard = source.manifest.shards[0]
    source.storage.delete(shard.name)
    wanted = place_id(source.storage.uri, shard.name, group, row)
    found = locate(mixture, Cursor(), [wanted, "toy-0"])
    assert found == [SampleLocation(wanted, f"{source.storage.uri}/{shard.name}", group)]
