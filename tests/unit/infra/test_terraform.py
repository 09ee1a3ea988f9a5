"""Terraform: formatted, consistent with the cluster files, private by default, narrow in what it permits."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
TERRAFORM = ROOT / "infra" / "terraform"
FILES = sorted(TERRAFORM.glob("*.tf"))
TEXT = "\n".join(path.read_text() for path in FILES)
HEREDOC_FREE = re.compile(r'"(?:[^"\\]|\\.)*"')
"""Strings; the files have no heredocs."""


def code(path: Path) -> str:
    """Without comments and what is inside strings."""
    lines = [HEREDOC_FREE.sub('""', line).split("#")[0] for line in path.read_text().splitlines()]
    return "\n".join(lines)


def block(kind: str, name: str) -> str:
    """A block's text, from its header to its closing brace in the first column."""
    match = re.search(rf'^{kind} "{name}".*?^}}', TEXT, re.MULTILINE | re.DOTALL)
    assert match, f"no {kind} {name}"
    return match[0]


def statement(sid: str) -> str:
    found = [
        s for s in re.findall(r"^  statement \{.*?^  \}", TEXT, re.MULTILINE | re.DOTALL) if f'"{sid}"' in s
    ]
    assert len(found) == 1, sid
    return str(found[0])


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_brackets_are_balanced(path: Path) -> None:
    text = code(path)
    for left, right in ("{}", "[]", "()"):
        assert text.count(left) == text.count(right), f"{left} {right}"


@pytest.mark.skipif(shutil.which("terraform") is None, reason="terraform is not installed")
def test_terraform_is_formatted() -> None:
    done = subprocess.run(
        ["terraform", "fmt", "-check", "-diff", str(TERRAFORM)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_every_reference_has_its_block() -> None:
    for name in set(re.findall(r"\bvar\.(\w+)", TEXT)):
        assert re.search(rf'^variable "{name}"', TEXT, re.MULTILINE), f"var.{name}"
    for kind, name in set(re.findall(r"\b(aws_\w+)\.(\w+)\.\w+", TEXT)):
        assert re.search(rf'^(resource|data) "{kind}" "{name}"', TEXT, re.MULTILINE), f"{kind}.{name}"
    for kind, name in set(re.findall(r"\bdata\.(aws_\w+)\.(\w+)\.", TEXT)):
        assert re.search(rf'^data "{kind}" "{name}"', TEXT, re.MULTILINE), f"data.{kind}.{name}"


def test_every_variable_is_used_and_described() -> None:
    for name in re.findall(r'^variable "(\w+)"', TEXT, re.MULTILINE):
        assert f"var.{name}" in TEXT, name
        assert "description" in block("variable", name)


def test_the_bucket_is_versioned_encrypted_and_private() -> None:
    assert 'status = "Enabled"' in block("resource", "aws_s3_bucket_versioning")
    assert "sse_algorithm" in block("resource", "aws_s3_bucket_server_side_encryption_configuration")
    public = block("resource", "aws_s3_bucket_public_access_block")
    assert len(re.findall(r"= true$", public, re.MULTILINE)) == 4


def test_objects_are_reached_below_the_prefixes_alone() -> None:
    text = statement("ReadWriteOwnPrefixes")
    assert "for prefix in concat(var.data_prefixes, var.run_prefixes)" in text
    actions = set(re.findall(r'"(s3:\w+)"', text))
    assert actions == {"s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"}
    assert "s3:prefix" in statement("ListOwnPrefixes")


def test_no_allowed_action_is_a_wildcard() -> None:
    for text in re.findall(r"^  statement \{.*?^  \}", TEXT, re.MULTILINE | re.DOTALL):
        if '"Deny"' not in text:
            assert not re.findall(r'"\w+:\*"|actions\s*=\s*\["\*"\]', text), text
        if 'resources = ["*"]' in text:
            assert '"SeeMachines"' in text, "only descriptions may be of everything"
            assert all(a.startswith("ec2:Describe") for a in re.findall(r'"(\w+:\w+)"', text))


def test_from_outside_only_ssh_from_one_address() -> None:
    rules = re.findall(
        r'^resource "aws_vpc_security_group_ingress_rule".*?^}', TEXT, re.MULTILINE | re.DOTALL
    )
    outside = [rule for rule in rules if "cidr" in rule]
    assert len(rules) == 2
    assert len(outside) == 1
    assert "var.ssh_from" in outside[0]
    assert re.findall(r"(?:from|to)_port\s+= (\d+)", outside[0]) == ["22", "22"]
    assert '!endswith(var.ssh_from, "/0")' in block("variable", "ssh_from")


def test_the_cluster_files_use_what_is_made_here() -> None:
    cluster = (ROOT / "clusters" / "aws-h100.yaml").read_text()
    outputs = (
        block("output", "subnet_public")
        + block("output", "subnet_private")
        + block("output", "security_group")
    )
    for word in ("subnet-PUBLIC", "subnet-PRIVATE", "sg-CLUSTER"):
        assert word in cluster
        assert word in outputs
    for suffix in ("head", "node"):
        assert f"Name: poma3d-{suffix}" in cluster
        assert f'"${{var.name}}-{suffix}"' in TEXT
    region = re.search(r"region: (\S+)", cluster)
    assert region
    assert f'"{region[1]}"' in block("variable", "region")


def test_the_readme_counts_what_is_there() -> None:
    resources = re.findall(r'^resource "', TEXT, re.MULTILINE)
    assert f"{len(resources)} resources." in (TERRAFORM / "README.md").read_text()
