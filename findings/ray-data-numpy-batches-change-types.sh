#!/usr/bin/env bash
# Ray Data 2.60.0: a function that returns its batch as it came changes the data if batches are NumPy: integers of
# a column with one null become float64 (ids above 2^53 change their value), fixed-size binary becomes binary, a
# time zone is lost. Ids and depth columns are such columns. What we do: batches are Arrow tables.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check ray[data]==2.60.0 pyarrow==26.0.1 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import datetime
import logging

import pyarrow
import ray

ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
logging.getLogger("ray.data").setLevel(logging.ERROR)
table = pyarrow.table(
    {
        "id": pyarrow.array([2**53 + 1, None], pyarrow.int64()),
        "depth": pyarrow.array([b"ab", b"cd"], pyarrow.binary(2)),
        "time": pyarrow.array([datetime.datetime(2026, 1, 1), None], pyarrow.timestamp("us", "Europe/Berlin")),
    }
)
same = ray.data.from_arrow(table).map_batches(lambda batch: batch, batch_format="numpy")
got = pyarrow.concat_tables(ray.get(same.to_arrow_refs()))
types = {name: (str(table.schema.field(name).type), str(got.schema.field(name).type)) for name in table.column_names}
print(f"ray {ray.__version__}: {types}, id {2**53 + 1} became {got['id'][0].as_py():.0f}")
assert types == {
    "id": ("int64", "double"),
    "depth": ("fixed_size_binary[2]", "binary"),
    "time": ("timestamp[us, tz=Europe/Berlin]", "timestamp[us]"),
}, "it changed"
assert got["id"][0].as_py() == 2**53
PYTHON
