"""`poma doctor` on storage and data: can it be reached, written, read, and is it what the job needs."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Iterable
from email.utils import parsedate_to_datetime

from jobs.common import models
from jobs.common.datasets import open_dataset
from jobs.common.run_layout import STAGES
from jobs.doctor.finding import Finding, Level
from jobs.pretrain.config import PretrainJob, stage_config
from plinth.data.shards import RowGroupReader
from plinth.redaction import redact
from plinth.storage import Storage, StorageOptions
from plinth.units import MIB

BIG_BYTES = 12 << 20
"""Enough to tell a rate."""
PART_BYTES = 5 << 20
"""The smallest part that S3 takes before the last."""
MAX_SKEW_S = 60.0
"""Signed requests are refused from 15 minutes on; a clock that is a minute off is not kept."""


def storage(job: PretrainJob) -> Iterable[Finding]:
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
        yield from _multipart(output)
        yield from _clock(output)


def _multipart(output: Storage) -> Iterable[Finding]:
    """What large checkpoints go by: an upload in parts, one finished and one given up."""
    if output.protocol != "s3":
        return
    key = f"{output.root}/.plinth-doctor-{uuid.uuid4().hex}".partition("/")[2]
    where = {"Bucket": output.bucket, "Key": key}
    call = output.filesystem.call_s3
    parts = [os.urandom(PART_BYTES), b"the last may be short"]
    doing, upload = "begun", None
    try:
        upload = call("create_multipart_upload", **where)["UploadId"]
        doing = "sent"
        sent = [
            call("upload_part", **where, UploadId=upload, PartNumber=i, Body=part)["ETag"]
            for i, part in enumerate(parts, 1)
        ]
        doing = "finished"
        listed = [{"PartNumber": i, "ETag": tag} for i, tag in enumerate(sent, 1)]
        call("complete_multipart_upload", **where, UploadId=upload, MultipartUpload={"Parts": listed})
        size = call("head_object", **where)["ContentLength"]
        call("delete_object", **where)
        doing = "given up"
        upload = call("create_multipart_upload", **where)["UploadId"]
        call("upload_part", **where, UploadId=upload, PartNumber=1, Body=parts[1])
        call("abort_multipart_upload", **where, UploadId=upload)
    except OSError as error:
        if upload is not None:
            with contextlib.suppress(OSError):
                call("abort_multipart_upload", **where, UploadId=upload)
        yield Finding(
            "storage", Level.bad,
            f"an upload in parts could not be {doing}: {redact(str(error).splitlines()[0])}",
            "Checkpoints are uploaded in parts; what is not finished is paid for until it is given up.",
            "Allow s3:PutObject and s3:AbortMultipartUpload on the prefix (see infra/terraform/roles.tf).",
        )  # fmt: skip
        return
    if size != sum(map(len, parts)):
        yield Finding(
            "storage", Level.bad, f"an upload in parts came out as {size} bytes of {sum(map(len, parts))}",
            "Checkpoints would be damaged.", "Use another store.",
        )  # fmt: skip
        return
    yield Finding("storage", Level.ok, "an upload in parts was finished, another given up")


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
    level = Level.ok if skew < MAX_SKEW_S else Level.bad
    yield Finding(
        "storage", level, f"this clock and the store's are {skew:.0f} s apart",
        "" if level is Level.ok else "Signed requests will be refused.",
        "" if level is Level.ok else "Start a time service (chrony, systemd-timesyncd).",
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
                f"{name}: {source.uri} has {rows} samples in {groups} row groups of {len(shards)} shard(s), "
                f"embedded by {record.name}; "
                "one row group read and whole",
            )  # fmt: skip
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
