"""What the integration tests share: a real S3 server on loopback."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from infra import objectstore
from plinth.storage import Storage, StorageOptions

ACCESS_KEY_ENV = "PLINTH_TEST_S3_ACCESS_KEY"
SECRET_KEY_ENV = "PLINTH_TEST_S3_SECRET_KEY"


@dataclass(frozen=True)
class S3Server:
    """The server, as a job would be told of it. The keys are in this process's environment."""

    store: objectstore.ObjectStore
    options: StorageOptions

    def bucket(self) -> Storage:
        """A new, empty bucket."""
        return Storage.from_uri(self.store.create_bucket(f"bucket-{uuid.uuid4().hex[:12]}"), self.options)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """Swift with its S3 API; installed on first use, which takes half a minute."""
    with objectstore.running() as store:
        os.environ[ACCESS_KEY_ENV] = store.access_key
        os.environ[SECRET_KEY_ENV] = store.secret_key
        options = StorageOptions(
            endpoint_url=store.endpoint_url,
            region=store.region,
            access_key_env=ACCESS_KEY_ENV,
            secret_key_env=SECRET_KEY_ENV,
            backoff_s=0.05,
        )
        yield S3Server(store, options)
        del os.environ[ACCESS_KEY_ENV], os.environ[SECRET_KEY_ENV]
