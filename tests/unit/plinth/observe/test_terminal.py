"""Known noise is dropped at its logger, and everything else that the logger says passes."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from plinth.observe.terminal import KNOWN, Noise, drop_noise, is_known_line, without_known_lines

MADE_UP = (Noise("a.test.of.noise", r"all is (well|fine)", "nothing to do"), Noise("", r"E .* handled", "so"))


def test_what_is_known_is_dropped_and_what_is_not_passes(caplog: pytest.LogCaptureFixture) -> None:
    drop_noise(MADE_UP)
    drop_noise(MADE_UP)  # once is enough
    logger = logging.getLogger("a.test.of.noise")
    assert len(logger.filters) == 1
    with caplog.at_level(logging.WARNING):
        logger.warning("all is %s here", "well")
        logger.warning("the disk is full")
        logging.getLogger("another").warning("all is well")
    assert caplog.messages == ["the disk is full", "all is well"]


def test_lines_of_processes() -> None:
    assert is_known_line("[E 1] core_worker.cc: E something\n was handled", MADE_UP)
    assert not is_known_line("[E 1] core_worker.cc: out of memory", MADE_UP)
    assert not is_known_line("all is well", MADE_UP), "of a logger, not of a process"
    said = (
        "core_worker.cc:2465: Actor with class name: 'PreemptionWatcher' and ID: 'ab' has constructor "
        "arguments in the object store and max_restarts > 0."
    )
    assert is_known_line(said)
    assert is_known_line("WARNING: 12 PYTHON worker processes have been started on node: ab with address: x")
    assert is_known_line("Checkpoint successfully created at: Checkpoint(filesystem=local, path=/x/tune/y)")
    assert not is_known_line(said.replace("PreemptionWatcher", "Coordinator"))
    unsure = "Failed to query Ray Train Controller actor state. State API may be temporarily unavailable. Con"
    assert is_known_line(f"(PlacementGroupCleaner pid=7) {unsure}tinuing to monitor.")
    dead = "Detected that the Ray Train controller actor (ab) is dead. Cleaning up placement group = [cd]"
    assert not is_known_line(f"(PlacementGroupCleaner pid=7) {dead} created by this run.")


def test_every_kind_of_noise_has_its_reason() -> None:
    assert all(one.why.endswith(".") and len(one.why) > 20 for one in KNOWN)


def test_lines_of_workers_are_printed_without_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    printed: list[list[str]] = []
    show = without_known_lines(lambda data, ignore_prefix: printed.append(data["lines"]))
    noise = "Actor with class name: 'PreemptionWatcher' has arguments and max_restarts > 0"
    show({"lines": [noise, "out of memory"], "is_err": True, "pid": 1}, ignore_prefix=False)
    show({"lines": [noise], "is_err": True, "pid": 1}, ignore_prefix=False)
    assert printed == [["out of memory"]]


@pytest.mark.slow
def test_the_messages_are_still_logged_by_these_loggers() -> None:
    """An upgrade that renames a logger would bring its noise back."""
    program = (
        "import logging; from plinth.observe.terminal import drop_noise; drop_noise()\n"
        "from ray._private.authentication import authentication_token_setup as setup\n"
        "setup._warn_token_auth_enabled(); setup._warn_token_auth_disabled()\n"
        "import deepspeed; logging.getLogger('DeepSpeed').warning('a real warning')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    said = done.stdout + done.stderr
    assert "authentication is enabled" not in said
    assert "Setting accelerator" not in said
    assert "authentication is disabled" in said
    assert "a real warning" in said
