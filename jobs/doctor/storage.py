"""`poma doctor` on storage and data: can it be reached, written, read, and is it what the job needs."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from jobs.common import models
from jobs.common.datasets import Dataset, open_dataset
from jobs.common.run_layout import STAGES, RunJob
from jobs.doctor.finding import Finding, Level
from jobs.pretrain.config import PretrainJob, stage_config
from plinth.data.shards import RowGroupReader
from plinth.errors import first_line
from plinth.redaction import redact
from plinth.storage import Storage, StorageOptions
from plinth.units import MIB, counted

BIG_BYTES = 12 << 20
"""Enough to tell a rate."""
PARTS = (bytes(5 << 20), b"the last may be short")
"""5 MiB is the smallest part that S3 takes before the last."""
MAX_SKEW_S = 60.0
"""S3 refuses signed requests that are 15 minutes off; a clock that is a minute off is not synchronised."""


def storage(job: RunJob) -> Iterable[Finding]:
    """List, write, read back and delete in the folder of runs; the clock; whose credentials."""
    output = Storage.from_uri(job.output, job.storage)
    output.check(write=True)
    key = f".plinth-doctor-{uuid.uuid4().hex}"
    data = os.urandom(BIG_BYTES)
    began = time.monotonic()
    output.write(key, data)
    written_s = time.monotonic() - began
    try:
        came_back = output.read(key)
    finally:
        output.delete(key)
    if came_back != data:
        yield Finding(
            "storage", Level.bad, f"{output.uri} gave back other bytes than were written",
            "Checkpoints would be damaged.", "Use another store.",
        )  # fmt: skip
        return
    rate = BIG_BYTES / MIB / max(written_s, 1e-9)
    yield Finding(
        "storage", Level.ok, f"{output.uri}: listed, written ({rate:.0f} MiB/s), read back, deleted"
    )
    if not output.is_local:
        yield Finding("storage", Level.ok, f"credentials: {credentials(job.storage)}")
        yield from upload_in_parts(output)
        yield from _clock(output)


def upload_in_parts(output: Storage) -> Iterable[Finding]:
    """Large checkpoints are uploaded in parts: finish one such upload and give another up."""
    if output.protocol != "s3":
        return
    key = f"{output.root}/.plinth-doctor-{uuid.uuid4().hex}".partition("/")[2]
    upload = _Upload(output, {"Bucket": output.bucket, "Key": key})
    expected = sum(map(len, PARTS))
    try:
        size = upload.finish_one()
        upload.give_one_up()
    except OSError as error:
        upload.abort()
        yield Finding(
            "storage", Level.bad,
            f"an upload in parts could not be {upload.doing}: {redact(first_line(error))}",
            "Checkpoints are uploaded in parts; what is not finished is paid for until it is given up.",
            "Allow s3:PutObject and s3:AbortMultipartUpload on the prefix (see infra/terraform/roles.tf).",
        )  # fmt: skip
        return
    is_whole = size == expected
    yield Finding(
        "storage", Level.ok if is_whole else Level.bad,
        "an upload in parts was finished, another given up" if is_whole
        else f"an upload in parts came out as {size} bytes of {expected}",
        "Checkpoints would be damaged.", "Use another store.",
    )  # fmt: skip


@dataclass
class _Upload:
    """An upload in parts, step by step."""

    storage: Storage
    where: dict[str, str]
    doing: str = "begun"
    """The step under way, for the message when it fails."""
    id: str | None = None

    def finish_one(self) -> int:
        """Bytes of the object that it made; the object is deleted again."""
        self._begin()
        self.doing = "sent"
        tags = [self._send(number, part) for number, part in enumerate(PARTS, 1)]
        self.doing = "finished"
        listed = [{"PartNumber": number, "ETag": tag} for number, tag in enumerate(tags, 1)]
        self._call("complete_multipart_upload", UploadId=self.id, MultipartUpload={"Parts": listed})
        self.id = None
        size = self._call("head_object")["ContentLength"]
        self._call("delete_object")
        return int(size)

    def give_one_up(self) -> None:
        self.doing = "given up"
        self._begin()
        self._send(1, PARTS[-1])
        self._call("abort_multipart_upload", UploadId=self.id)

    def abort(self) -> None:
        """Give up what was begun, if the store lets us."""
        if self.id is not None:
            with contextlib.suppress(OSError):
                self._call("abort_multipart_upload", UploadId=self.id)

    def _begin(self) -> None:
        self.id = self._call("create_multipart_upload")["UploadId"]

    def _send(self, number: int, part: bytes) -> str:
        return str(self._call("upload_part", UploadId=self.id, PartNumber=number, Body=part)["ETag"])

    def _call(self, name: str, **arguments: Any) -> Any:
        return self.storage.filesystem.call_s3(name, **self.where, **arguments)


def credentials(options: StorageOptions) -> str:
    """Where they come from; never what they are."""
    if options.access_key_env:
        return f"environment variables {options.access_key_env} and {options.secret_key_env}"
    if options.profile:
        return f"profile {options.profile} of the credentials file"
    if os.environ.get("AWS_ACCESS_KEY_ID"):
        return "environment variables AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    return "the client's own chain (credentials file, instance role)"


def _clock(output: Storage) -> Iterable[Finding]:
    if output.protocol != "s3":
        return
    answer = output.filesystem.call_s3("list_objects_v2", Bucket=output.bucket, MaxKeys=1)
    said = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    if not said:
        return
    skew = abs(parsedate_to_datetime(said).timestamp() - time.time())
    yield Finding(
        "storage", Level.ok if skew < MAX_SKEW_S else Level.bad,
        f"this clock and the store's are {skew:.0f} s apart",
        "Signed requests will be refused.", "Start a time service (chrony, systemd-timesyncd).",
    )  # fmt: skip


def data(job: PretrainJob) -> Iterable[Finding]:
    """Every data set: its manifest, its teacher, one row group against its checksums, and its size."""
    record = models.record(job.teacher, job.storage)
    for name in STAGES:
        stage = stage_config(job, name)
        for source in stage.data.sources if stage is not None else []:
            dataset = open_dataset(source.uri, job.storage, record)
            shard = dataset.manifest.shards[len(dataset.manifest.shards) // 2]
            RowGroupReader(dataset.storage).read(shard, 0, list(shard.columns))
            rows, shards = dataset.manifest.rows, dataset.manifest.shards
            groups = sum(len(s.row_group_rows) for s in shards)
            yield Finding(
                "data", Level.ok,
                f"{name}: {source.uri} has {rows} samples in {groups} row groups of "
                f"{counted(len(shards), 'shard')}, embedded by {record.name}; one row group read and whole",
            )  # fmt: skip
            yield from agreement(f"{name}: {source.uri}", dataset)
            assert stage is not None
            if groups < stage.data.lanes:
                yield Finding(
                    "data", Level.warn, f"{name}: {groups} row groups for {stage.data.lanes} lanes",
                    "Lanes without a row group of their own read what others have read.",
                    "Write smaller row groups (shards.row_group_rows), or lower data.lanes.",
                )  # fmt: skip
            if rows < stage.global_batch_size:
                yield Finding(
                    "data", Level.warn,
                    f"{name}: {rows} samples, a global batch takes {stage.global_batch_size}",
                    "Samples are repeated within a batch.", "Lower global_batch_size, or add data.",
                )  # fmt: skip


def agreement(where: str, dataset: Dataset) -> Iterable[Finding]:
    """How the views of its scans agree, and what ingest found doubtful about them."""
    for line in dataset.disagreement.lines() if dataset.disagreement else []:
        yield Finding("data", Level.ok, f"{where}: {line}")
    for line in dataset.doubts():
        yield Finding(
            "data", Level.warn, f"{where}: {line}",
            "Point maps that are wrong train as well as right ones: no later step tells.",
            "Look at `poma shards preview`, mend the scans or the job, and run `poma ingest` again.",
        )  # fmt: skip
