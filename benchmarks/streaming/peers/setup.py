"""The peers as seen from this project: their environment, their copies of the content, their consumers."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import botocore.session

from benchmarks.streaming.content import ACCESS_KEY_ENV, SECRET_KEY_ENV
from benchmarks.streaming.workers import ROOT
from infra.objectstore.install import ensure_installed
from plinth.storage import Storage

FORMATS = {"StreamingDataset": "mds", "LitData": "litdata", "WebDataset": "wds"}
OVER_HTTP = ("WebDataset",)
"""Those that read from the S3 server of `infra.objectstore`, which speaks HTTP. LitData's client refuses what
is not HTTPS; StreamingDataset's reads failed here in some tries, for a reason that was not found."""
SIGNED_FOR_S = 24 * 3600


@dataclass(frozen=True)
class Peers:
    """The content in the formats of the peers, under `storage`; `folder` is local and holds their caches."""

    python: Path
    storage: Storage
    folder: Path
    views: int

    def bytes_per_view(self, name: str) -> float:
        """As stored."""
        return sum(size for _, size in self.storage.list(FORMATS[name])) / self.views

    def config(self, name: str) -> dict[str, Any]:
        """What its consumers are told; see `benchmarks.streaming.peers.consumers`."""
        where, options = f"{self.storage.uri.rstrip('/')}/{FORMATS[name]}", self.storage.options
        s3 = {} if self.storage.is_local else {"endpoint_url": options.endpoint_url, "region": options.region}
        tars = [key for key, _ in self.storage.list(FORMATS["WebDataset"])]
        return {
            "path": name,
            "where": where.removeprefix("file://"),
            "cache": str(self.folder / f"cache-{FORMATS[name]}"),
            "s3": s3,
            "urls": [self._url(key) for key in sorted(tars)],
        }

    def command(self) -> list[str]:
        """Starts a consumer."""
        return [str(self.python), "-m", "benchmarks.streaming.peers.consumers"]

    def caches(self, name: str) -> list[Path]:
        """Files that its library has made from what it read."""
        made = list((self.folder / f"cache-{FORMATS[name]}").rglob("*"))
        if self.storage.is_local and name == "StreamingDataset":  # it decompresses shards where they lie
            made += (Path(self.storage.root) / FORMATS[name]).glob("*.mds")
        return [path for path in made if path.is_file()]

    def _url(self, key: str) -> str:
        """WebDataset has no S3 client: it runs curl, which takes signed URLs."""
        if self.storage.is_local:
            return f"{self.storage.root}/{key}"
        bucket, _, prefix = self.storage.root.partition("/")
        name = f"{prefix}/{key}" if prefix else key
        return str(
            self._client().generate_presigned_url(
                "get_object", {"Bucket": bucket, "Key": name}, ExpiresIn=SIGNED_FOR_S
            )
        )

    def _client(self) -> Any:
        return botocore.session.get_session().create_client(
            "s3",
            region_name=self.storage.options.region,
            endpoint_url=self.storage.options.endpoint_url,
            aws_access_key_id=os.environ[ACCESS_KEY_ENV],
            aws_secret_access_key=os.environ[SECRET_KEY_ENV],
        )


def environment(folder: Path) -> Path:
    """The Python of the peers' environment in `folder`, which is made at the first call (minutes)."""
    return (
        ensure_installed(Path(__file__).with_name("requirements.txt"), folder.absolute() / "venv") / "python"
    )


def convert(python: Path, columns: Path, storage: Storage, folder: Path, views: int) -> Peers:
    """Write the content in `columns` in all formats, under `storage`."""
    local = Path(storage.root) if storage.is_local else folder / "converted"
    local.mkdir(parents=True, exist_ok=True)
    command = [str(python), "-m", "benchmarks.streaming.peers.convert", str(columns), str(local)]
    subprocess.run(command, cwd=ROOT, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=2)
    if not storage.is_local:
        for path in sorted(p for p in local.rglob("*") if p.is_file()):
            storage.write(path.relative_to(local).as_posix(), path.read_bytes())
            path.unlink()
        # What the libraries' own S3 clients look for.
        os.environ |= {
            "AWS_ACCESS_KEY_ID": os.environ[ACCESS_KEY_ENV],
            "AWS_SECRET_ACCESS_KEY": os.environ[SECRET_KEY_ENV],
            "AWS_DEFAULT_REGION": str(storage.options.region),
            "S3_ENDPOINT_URL": str(storage.options.endpoint_url),
        }
    return Peers(python, storage, folder, views)
