"""A real S3 server for tests and for trying things without a cloud: OpenStack Swift on loopback."""

from infra.objectstore.install import ObjectStoreError
from infra.objectstore.server import ObjectStore, running

__all__ = ["ObjectStore", "ObjectStoreError", "running"]
