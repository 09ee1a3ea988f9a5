"""No file that is shipped to users holds a secret, or opens a port to the world without one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.helpers.infra.secrets import findings

ROOT = Path(__file__).parents[3]
SHIPPED = sorted(
    path
    for folder in (
        "clusters",
        "infra/docker",
        "infra/kuberay",
        "infra/terraform",
        "infra/grafana",
        "jobs/configs",
    )
    for path in (ROOT / folder).rglob("*")
    if path.is_file() and path.suffix != ".lock" and "__pycache__" not in path.parts
)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: str(p.relative_to(ROOT)))
def test_shipped_file_holds_no_secret(path: Path) -> None:
    assert not findings(path.read_text())


@pytest.mark.parametrize(
    "planted",
    [
        "aws_access_key_id: AKIAABCDEFGHIJKLMNOP",
        "-----BEGIN OPENSSH PRIVATE KEY-----",
        "  - {name: HF_TOKEN, value: hf_abcdefghijklmnopqrst}",
        "  secret_key: wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY",
        "password: correcthorse1",
        'auth_token = "0123456789abcdef0123456789abcdef"',
    ],
)
def test_a_planted_secret_is_found(planted: str) -> None:
    assert findings(f"kind: x\n{planted}\n")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: str(p.relative_to(ROOT)))
def test_shipped_file_opens_no_port_to_everybody(path: Path) -> None:
    """0.0.0.0 is a destination (terraform's routes and egress), or inside pods behind token and policy."""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if "0.0.0.0" not in line or line.lstrip().startswith("#"):
            continue
        where = f"{path.relative_to(ROOT)}:{number}"
        if path.suffix == ".tf":
            assert re.search(r'cidr_(block|ipv4)\s+= "0\.0\.0\.0/0"', line), where
        else:
            assert "kuberay" in path.parts, where
            assert "dashboard-host: 0.0.0.0" in line, where
