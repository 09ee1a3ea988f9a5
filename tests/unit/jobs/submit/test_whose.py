"""A job goes to no cluster of this machine that its user has not said to be theirs."""

from __future__ import annotations

import getpass
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.submit.whose import Cluster, describe, make_sure
from plinth.errors import ConfigError

LOOPBACK = "http://127.0.0.1:8265"
CLUSTER = Cluster(LOOPBACK, "session_a", "node (10.0.0.1)", "ann", 1_000_000.0)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POMA3D_CACHE", str(tmp_path / "cache"))


def must_not_ask(question: str) -> str:
    pytest.fail(question)


def test_a_dashboard_s_answers_name_machine_user_and_start(tmp_path: Path) -> None:
    raylet = {"isHeadNode": True, "startTimeMs": "1795976687815", "sessionDir": str(tmp_path)}
    worker = {"hostname": "other", "ip": "10.0.0.2", "raylet": {"isHeadNode": False}}
    nodes = {"data": {"summary": [worker, {"hostname": "vm", "ip": "10.0.0.1", "raylet": raylet}]}}
    found = describe(LOOPBACK, {"session_name": "session_a"}, nodes)
    assert found == Cluster(LOOPBACK, "session_a", "vm (10.0.0.1)", getpass.getuser(), 1795976687.815)
    raylet["sessionDir"] = "/not/here"
    assert describe(LOOPBACK, {}, nodes).user == ""
    for empty in ({}, {"data": None}, {"data": {"summary": None}}):
        assert describe(LOOPBACK, {}, empty) == Cluster(LOOPBACK, "")


def test_without_a_terminal_an_unknown_cluster_is_refused_and_yes_is_kept_for_its_session() -> None:
    with pytest.raises(ConfigError, match=r"on node .* started by ann at 1970-01-12.*--yes"):
        make_sure(CLUSTER, is_sure=False)
    make_sure(CLUSTER, is_sure=True, ask=must_not_ask)
    make_sure(CLUSTER, is_sure=False)
    with pytest.raises(ConfigError, match="--yes"):  # another one at the same address
        make_sure(replace(CLUSTER, session="session_b"), is_sure=False)
    nameless = replace(CLUSTER, session="")  # it cannot be told from others, so it is asked for each time
    make_sure(nameless, is_sure=True)
    with pytest.raises(ConfigError, match="--yes"):
        make_sure(nameless, is_sure=False)


@pytest.mark.parametrize(
    ("answer", "is_sent"), [("y", True), (" Yes ", True), ("", False), ("n", False), (None, False)]
)
def test_at_a_terminal_the_user_decides(answer: str | None, is_sent: bool) -> None:
    asked: list[str] = []

    def ask(question: str) -> str:
        asked.append(question)
        if answer is None:
            raise EOFError  # Ctrl-D
        return answer

    if is_sent:
        make_sure(CLUSTER, is_sure=False, ask=ask)
    else:
        with pytest.raises(ConfigError, match="Nothing was sent"):
            make_sure(CLUSTER, is_sure=False, ask=ask)
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("address", "is_loopback"),
    [
        ("http://localhost:8265", True), ("http://127.8.0.1:1", True), ("http://[::1]:8265", True),
        ("http://0.0.0.0:8265", True), ("http://[::]:8265", True),
        ("http://10.0.0.1:8265", False), ("https://head.example:443", False),
    ],
)  # fmt: skip
def test_only_addresses_of_this_machine_are_anybody_s(
    address: str, is_loopback: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster = replace(CLUSTER, address=address)
    assert cluster.is_loopback == is_loopback
    if not is_loopback:
        make_sure(cluster, is_sure=False, ask=must_not_ask)
        assert f"to the Ray cluster at {address} on node" in capsys.readouterr().err
