"""What the integration tests share: a real S3 server on loopback, and a Ray cluster of several nodes."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from infra import objectstore
from jobs.common.cluster import free_port
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


def storage_section(options: StorageOptions) -> dict[str, Any]:
    """How the job reaches the server: names of environment variables, never keys."""
    return {
        "endpoint_url": options.endpoint_url,
        "region": options.region,
        "access_key_env": options.access_key_env,
        "secret_key_env": options.secret_key_env,
    }


@dataclass
class Nodes:
    """A cluster of a head without room for workers, and nodes with room for one each."""

    cluster: Any

    def add(self, count: int = 1) -> list[Any]:
        """Start nodes; returns once they are part of the cluster."""
        return [self.cluster.add_node(num_cpus=1) for _ in range(count)]

    def remove(self, node: Any) -> None:
        """End a node without a word to anybody."""
        self.cluster.remove_node(node, allow_graceful=False)


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    """Such a cluster; a node that is gone is noticed after two seconds."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 0,
            "include_dashboard": True,
            "dashboard_host": "127.0.0.1",
            "dashboard_port": free_port(),  # the default one may be another Ray's of this machine
            "_system_config": {"health_check_period_ms": 500, "health_check_failure_threshold": 4},
        },
    )
    ray.init(address=cluster.address, log_to_driver=False)
    yield Nodes(cluster)
    ray.shutdown()
    cluster.shutdown()
