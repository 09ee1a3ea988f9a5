"""`poma doctor` against a real S3 server: what it tries leaves nothing, and what is refused is said."""

from __future__ import annotations

import logging
import re

import pytest

from jobs.doctor import storage as doctor_storage
from jobs.doctor.finding import Level
from jobs.pretrain.config import PretrainJob
from tests.integration.conftest import S3Server

pytestmark = pytest.mark.slow


def test_doctor_tries_every_storage_call_and_leaves_nothing(
    s3_server: S3Server, caplog: pytest.LogCaptureFixture
) -> None:
    bucket = s3_server.bucket()
    job = PretrainJob(name="run", output=bucket.child("runs").uri, storage=s3_server.options)
    with caplog.at_level(logging.DEBUG, logger="plinth"):
        found = list(doctor_storage.storage(job))
    assert {f.level for f in found} == {Level.ok}
    said = "\n".join(f.text() for f in found)
    assert "an upload in parts was finished, another given up" in said
    assert "environment variables PLINTH_TEST_S3_ACCESS_KEY and PLINTH_TEST_S3_SECRET_KEY" in said
    # The store's clock comes in whole seconds.
    assert re.search(r"this clock and the store's are [0-2] s apart", said)
    for secret in (s3_server.store.access_key, s3_server.store.secret_key):
        assert secret not in said + caplog.text
    assert bucket.list() == []
    listed = bucket.filesystem.call_s3("list_multipart_uploads", Bucket=bucket.bucket)
    assert not listed.get("Uploads")


def test_doctor_names_a_store_that_refuses_multipart_uploads(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = s3_server.bucket()
    call = bucket.filesystem.call_s3

    def refuse(method: str, **arguments: object) -> object:
        if method == "complete_multipart_upload":
            raise PermissionError("Access Denied: X-Amz-Signature=abcdef012345")
        return call(method, **arguments)

    monkeypatch.setattr(bucket.filesystem, "call_s3", refuse)
    (finding,) = doctor_storage.upload_in_parts(bucket)
    assert (finding.level, "could not be finished: Access Denied" in finding.what) == (Level.bad, True)
    assert "abcdef" not in finding.what
    listed = call("list_multipart_uploads", Bucket=bucket.bucket)
    assert not listed.get("Uploads"), "given up again"
