#!/usr/bin/env bash
# s3fs 2026.9.0: `cat_file(path, start=5, end=5)`, an empty range, returns the whole object: a reader that computes
# its ranges downloads a shard where it asked for nothing. (A local file gives no bytes.)
# What we do: an empty range makes no request.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check s3fs==2026.9.0 "moto[server,s3]==5.2.2"
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import os

os.environ.update(AWS_ACCESS_KEY_ID="any", AWS_SECRET_ACCESS_KEY="any", AWS_DEFAULT_REGION="us-east-1")
import fsspec
import s3fs
from moto.server import ThreadedMotoServer

server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
host, port = server.get_host_and_port()
remote = s3fs.S3FileSystem(endpoint_url=f"http://{host}:{port}")
remote.mkdir("bucket")
remote.pipe_file("bucket/object", b"0123456789")
with open("object", "wb") as file:
    file.write(b"0123456789")
local = fsspec.filesystem("file").cat_file(os.path.abspath("object"), start=5, end=5)
seen = remote.cat_file("bucket/object", start=5, end=5)
print(f"s3fs {s3fs.__version__}: bytes 5 to 5 of ten are {seen!r}; of a local file {local!r}")
server.stop()
assert (seen, local) == (b"0123456789", b""), "it changed"
PYTHON
