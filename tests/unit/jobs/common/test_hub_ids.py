from __future__ import annotations

import socket
from pathlib import Path

import pytest
from huggingface_hub import constants

from jobs.common import models
from plinth.errors import ConfigError


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    models.is_known.cache_clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in models.PROXIES:
        monkeypatch.delenv(name, raising=False)


def no_names(*_: object) -> None:
    raise socket.gaierror("no network")


def test_without_a_network_the_hub_s_client_does_not_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", no_names)
    models.check_source("owner/name", "teacher.source")
    assert constants.HF_HUB_OFFLINE is True


def test_behind_a_proxy_no_name_has_to_be_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", no_names)
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    models.check_source("owner/name", "teacher.source")
    assert constants.HF_HUB_OFFLINE is False


def test_a_folder_asks_nobody_and_one_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", no_names)
    models.check_source(str(tmp_path), "teacher.source")
    assert constants.HF_HUB_OFFLINE is False
    with pytest.raises(ConfigError, match=r"lifter\.source \./x: no such folder"):
        models.check_source("./x", "lifter.source")
