"""The storage flags of commands that have no job file."""

from __future__ import annotations

import argparse

from plinth.storage.options import StorageOptions


def add_storage_flags(parser: argparse.ArgumentParser) -> None:
    """How to reach the object store; credentials come from the environment."""
    parser.add_argument("--endpoint-url", help="S3 endpoint other than AWS's")
    parser.add_argument("--region", help="S3 region")
    parser.add_argument("--profile", help="named profile of the AWS credentials file")


def storage_options(arguments: argparse.Namespace) -> StorageOptions:
    """What the flags say."""
    return StorageOptions(
        endpoint_url=arguments.endpoint_url, region=arguments.region, profile=arguments.profile
    )
