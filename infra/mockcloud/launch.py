"""Starts a cluster file against moto's EC2 and IAM and prints what was asked for; it stays in this process.

Run by `infra.mockcloud.launches` in an environment that has moto, with Ray behind it on the path. Ray's own
AWS provider bootstraps the file and creates one node of each type; printed is one JSON object:

    requests   node type -> the parameters of its RunInstances call
    machines   node type -> what EC2 then describes
    made       security groups and roles that Ray made by itself
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

ACCOUNT_REGION = "us-west-2"
IMAGE_WORD = "resolve:ssm:"


def main() -> None:
    """`python launch.py CLUSTER_FILE SITE_PACKAGES`, the second with Ray in it."""
    sys.path.append(sys.argv[2])  # behind this environment's own: its botocore is the one that moto knows
    os.environ.update(
        HOME=tempfile.mkdtemp(), AWS_ACCESS_KEY_ID="testing", AWS_SECRET_ACCESS_KEY="testing",
        AWS_DEFAULT_REGION=ACCOUNT_REGION, AWS_EC2_METADATA_DISABLED="true",
    )  # fmt: skip
    os.environ.pop("AWS_PROFILE", None)
    from moto import mock_aws
    from ray.autoscaler._private.cli_logger import cli_logger

    cli_logger.configure(log_style="record")  # to standard error, so that the output is the JSON alone
    with mock_aws():
        print(json.dumps(launch(Path(sys.argv[1])), default=str))


def launch(path: Path) -> dict[str, Any]:
    """Bootstrap the file and start one node of each type."""
    import boto3
    import yaml
    from ray.autoscaler._private.aws.config import bootstrap_aws
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
    from ray.autoscaler._private.util import prepare_config, validate_config

    (Path.home() / ".ssh").mkdir()
    ec2 = boto3.client("ec2", ACCOUNT_REGION)
    content = path.read_text()
    for word, value in _account(ec2, boto3.client("iam")).items():
        content = content.replace(word, value)
    config = prepare_config(yaml.safe_load(content))
    validate_config(config)
    groups_before = _names(ec2)
    config = bootstrap_aws(config)
    provider = AWSNodeProvider(config["provider"], config["cluster_name"])
    sent: list[dict[str, Any]] = []
    events = provider.ec2_fail_fast.meta.client.meta.events
    events.register("provide-client-params.ec2.RunInstances", lambda params, **_: sent.append(params))
    image = ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
    requests, machines = {}, {}
    for name, node in config["available_node_types"].items():
        asked = dict(node["node_config"])
        # EC2 resolves the parameter itself; moto knows images by id alone.
        given = {**asked, "ImageId": image} if asked["ImageId"].startswith(IMAGE_WORD) else asked
        created = provider.create_node(given, {"ray-user-node-type": name, "ray-node-kind": "worker"}, 1)
        requests[name] = {**sent[-1], "ImageId": asked["ImageId"]}
        (instance_id,) = created
        (reservation,) = ec2.describe_instances(InstanceIds=[instance_id])["Reservations"]
        machines[name] = reservation["Instances"][0]
    return {
        "requests": requests,
        "machines": machines,
        "made": sorted(_names(ec2) - groups_before),
    }


def _account(ec2: Any, iam: Any) -> dict[str, str]:
    """What infra/terraform makes, as far as the file refers to it: word in the file -> id."""
    vpc = ec2.create_vpc(CidrBlock="10.42.0.0/16")["Vpc"]["VpcId"]
    subnets = [
        ec2.create_subnet(VpcId=vpc, CidrBlock=block)["Subnet"]["SubnetId"]
        for block in ("10.42.0.0/24", "10.42.16.0/20")
    ]
    group = ec2.create_security_group(GroupName="poma3d-cluster", Description="-", VpcId=vpc)["GroupId"]
    for name in ("poma3d-head", "poma3d-node"):
        iam.create_instance_profile(InstanceProfileName=name)
        iam.create_role(RoleName=name, AssumeRolePolicyDocument="{}")
        iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)
    return {"subnet-PUBLIC": subnets[0], "subnet-PRIVATE": subnets[1], "sg-CLUSTER": group}


def _names(ec2: Any) -> set[str]:
    return {group["GroupName"] for group in ec2.describe_security_groups()["SecurityGroups"]}


if __name__ == "__main__":
    main()
