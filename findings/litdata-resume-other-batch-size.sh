#!/usr/bin/env bash
# LitData 0.2.76: an epoch that is cut and resumed with another batch size or world size gives samples twice when
# what was seen is no multiple of the new global batch: it rounds down to one, while its log says "no duplicates".
# Hurts whoever resumes on 3 nodes what ran on 4. (With a divisor of the old global batch each comes once.)
# What we do: the global batch and the order are the job's; a world size that does not divide them is refused.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check litdata==0.2.76 torch==2.13.0 numpy==2.4.6
cd "$folder"
cat >peer.py <<'PYTHON'
import copy
from collections import Counter

import litdata

SAMPLES, BATCH, BATCHES = 1000, 64, 5


def item(i):
    return {"id": i}


def loader(batch_size):
    data = litdata.StreamingDataset("data", shuffle=True, drop_last=False)
    return litdata.StreamingDataLoader(data, batch_size=batch_size)


if __name__ == "__main__":
    litdata.optimize(item, list(range(SAMPLES)), "data", chunk_size=100, num_workers=1, verbose=False)
    first, seen = loader(BATCH), []
    for number, batch in enumerate(first, 1):
        seen += batch["id"].tolist()
        if number == BATCHES:
            break
    state = first.state_dict()
    twice = {}
    for size in (64, 32, 48, 100):
        resumed = loader(size)
        resumed.load_state_dict(copy.deepcopy(state))
        counts = Counter(seen)
        counts.update(i for batch in resumed for i in batch["id"].tolist())
        assert len(counts) == SAMPLES
        twice[size] = sum(n > 1 for n in counts.values())
    print(f"litdata {litdata.__version__}: {len(seen)} samples seen, then resumed with batches of: samples seen twice: {twice}")
    assert twice == {64: 0, 32: 0, 48: 32, 100: 20}, "it changed"
PYTHON
"$folder/venv/bin/python" peer.py
