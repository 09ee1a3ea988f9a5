"""The container beside Ray's in every pod of a run that keeps its logs and events for the History Server.

What is the same in every run stands in `infra/kuberay/history/collector.yaml`; role, run and store come from
the job.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from jobs.submit.config import HistoryConfig
from plinth.errors import ConfigError
from plinth.storage import StorageOptions

HEAD, WORKER = "Head", "Worker"
"""What the collector calls the two kinds of nodes."""
STORES = {"s3": ("s3", "S3_BUCKET"), "gs": ("gcs", "GCS_BUCKET")}
"""Protocol of a location -> the collector's word for it, and its variable for the bucket."""
KEYS = {
    "access_key_env": "AWS_ACCESS_KEY_ID",
    "secret_key_env": "AWS_SECRET_ACCESS_KEY",
    "session_token_env": "AWS_SESSION_TOKEN",
}
"""Field of `StorageOptions` -> the collector's variable for the same."""
KEY = "kubernetes.history.location"
ENDPOINT_SCHEMES = ("http", "https")

Manifest = dict[str, Any]


def add_collectors(
    cluster: Manifest, collector: Manifest, asked: HistoryConfig, options: StorageOptions, run: str
) -> None:
    """Give every pod of a cluster its collector.

    Args:
        cluster: the spec of a RayCluster whose pods have one container each; it is changed.
        collector: `collector.yaml`.
        options: how the bucket is reached.
        run: name of the RayJob.

    Raises:
        ConfigError: a location that the collector does not know, a region that is not given, or an address of
            the store without a scheme.
    """
    store = _store(asked, options)
    for role, group in _groups(cluster):
        pod, added = group["template"]["spec"], copy.deepcopy(collector["template"]["spec"])
        (ray,), (beside, own) = pod["containers"], added["containers"]
        keys = list(_keys(ray["env"], options))
        ray["env"] += beside["env"]
        ray["volumeMounts"] += beside["volumeMounts"]
        said = {"RAY_ROLE": role, "OWNER_NAME": run, **store}
        own["env"] += [{"name": name, "value": value} for name, value in said.items()] + keys
        pod["containers"].append(own)
        pod["volumes"] += added["volumes"]


def _groups(cluster: Manifest) -> Iterator[tuple[str, Manifest]]:
    yield HEAD, cluster["headGroupSpec"]
    yield from ((WORKER, group) for group in cluster["workerGroupSpecs"])


def _store(asked: HistoryConfig, options: StorageOptions) -> dict[str, str]:
    """The variables that say where it writes."""
    protocol, _, path = asked.location.partition("://")
    bucket, _, prefix = path.strip("/").partition("/")
    if protocol not in STORES or not bucket or not prefix:
        raise ConfigError(
            f"{KEY} is {asked.location}, expected s3://bucket/prefix or gs://bucket/prefix.",
            "It is the bucket and the folder in it that infra/kuberay/history/server.yaml reads.",
        )
    backend, bucket_variable = STORES[protocol]
    found = {"STORAGE_BACKEND": backend, "STORAGE_ROOT_DIR": prefix, bucket_variable: bucket}
    if protocol == "s3":
        if options.region is None:
            raise ConfigError(
                f"{KEY} is in S3, and storage.region is empty: the collector does not find it.",
                "Set storage.region, such as us-west-2; servers other than AWS take any.",
            )
        found["S3_REGION"] = options.region
        if options.endpoint_url is not None:
            server = urlsplit(options.endpoint_url)
            if server.scheme not in ENDPOINT_SCHEMES or not server.netloc:
                raise ConfigError(
                    f"storage.endpoint_url is {options.endpoint_url}, expected http://HOST:PORT or https://HOST.",
                    "The collector is told host and port apart from whether there is TLS.",
                )
            found |= {"S3_ENDPOINT": server.netloc, "S3FORCE_PATH_STYLE": "true"}
            found["S3DISABLE_SSL"] = "true" if server.scheme == "http" else "false"
    return found


def _keys(env: list[Manifest], options: StorageOptions) -> Iterator[Manifest]:
    """The storage keys by the collector's names, from where Ray's container has them; none where a role
    reaches the bucket."""
    given = {entry["name"]: entry for entry in env}
    for key, variable in KEYS.items():
        name = getattr(options, key)
        if name is not None:
            yield {**given[name], "name": variable}
