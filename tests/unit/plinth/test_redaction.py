"""Planted secrets go, names and everything else stays; escape codes reach no terminal and no log."""

from __future__ import annotations

import io
import logging

import pytest

from plinth.observe.failures import Failure, first_cause
from plinth.redaction import RedactionFilter, printable, redact, without_codes

RED = "a\x1b[31m\rb\u2028c\x9bd\x00"
PLANTED = "pl4nted+s3cret/value"
ENVIRONMENT = {
    "MY_SECRET_KEY": "Zm9vYmFyCg", "WANDB_API_KEY": "0123456789abcdef", "HF_TOKEN": "hf-of-nobody",
    "DB_PASSWORD": "correct horse", "AWS_ACCESS_KEY_ID": "minioadmin", "OTHER_KEY": "1",
    "HOME": "/home/someone",
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (f"GET https://b.s3.amazonaws.com/k?X-Amz-Expires=60&X-Amz-Signature={PLANTED}", "X-Amz-Expires=60"),
        (f"https://b/k?X-Amz-Credential={PLANTED}%2F20260101&versionId=7", "versionId=7"),
        (f"https://h/b/k?AWSAccessKeyId={PLANTED}&Signature={PLANTED}&Expires=9", "Expires=9"),
        (f"https://a.blob.core.windows.net/c?sp=r&sig={PLANTED}", "sp=r"),
        (f"Authorization: AWS4-HMAC-SHA256 Credential={PLANTED}/s3, Signature={PLANTED}", "AWS4-HMAC-SHA256"),
        (f"{{'authorization': 'Bearer {PLANTED}'}}", "authorization"),
        (f"authorization: Basic {PLANTED}", "authorization: Basic"),
        (f"secret_key={PLANTED} region=eu", "region=eu"),
        (f'{{"aws_secret_access_key": "{PLANTED}", "n": 1}}', '"n": 1'),
        (f"password: {PLANTED}\nuser: ann", "user: ann"),
        (f"HF_TOKEN={PLANTED}", "HF_TOKEN="),
        (f"s3://user:{PLANTED}@bucket/prefix".replace(PLANTED, "pl4nted+s3cret"), "@bucket/prefix"),
        (f"-----BEGIN RSA PRIVATE KEY-----\n{PLANTED}\n-----END RSA PRIVATE KEY----- end", "end"),
    ],
)  # fmt: skip
def test_a_planted_secret_goes(text: str, kept: str) -> None:
    shown = redact(text, {})
    assert "pl4nted" not in shown
    assert "s3cret" not in shown
    assert kept in shown
    assert redact(shown, {}) == shown, "twice is the same as once"


@pytest.mark.parametrize("key", ["AKIAIOSFODNN7EXAMPLE", "hf_" + "a1B2" * 8, "ghp_" + "a1B2" * 9])
def test_keys_that_are_known_by_their_beginning(key: str) -> None:
    assert redact(f"using {key}.", {}) == "using ***."


@pytest.mark.parametrize(
    "text",
    [
        "storage.secret_key_env=MY_SECRET_KEY storage.access_key_env=MY_ACCESS_KEY",
        "Check the environment variables AWS_SECRET_ACCESS_KEY and AWS_ACCESS_KEY_ID.",
        "main 20/80  epoch 4  loss 0.1000  view 1.000  lr 1.00e-03  8.0 samples/s  data wait 25%",
        "sample_key: 1234567 image_tokens: true tokens=248000",
        "s3://bucket/key at http://127.0.0.1:9000: the bucket does not exist.",
        "Basic sanity: 12:30:45 design=new, a basic functionality-check, the bearer authentication",
    ],
)
def test_everything_else_stays(text: str) -> None:
    assert redact(text, {}) == text


def test_values_of_the_environment_go_wherever_they_are() -> None:
    text = "key minioadmin, Zm9vYmFyCg and 0123456789abcdef in /home/someone, hf-of-nobody, correct horse, 1"
    assert redact(text, ENVIRONMENT) == "key ***, *** and *** in /home/someone, ***, ***, 1"


def test_a_handler_with_the_filter_shows_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANTED_TOKEN", PLANTED)
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(RedactionFilter())
    log = logging.Logger("redacted")
    log.addHandler(handler)
    log.info("asked with %s, %d tries", PLANTED, 3)
    try:
        raise ValueError(f"no access with {PLANTED}")
    except ValueError:
        log.exception("it failed")
    text = stream.getvalue()
    assert "pl4nted" not in text
    assert "asked with ***, 3 tries" in text
    assert "ValueError: no access with ***" in text


def test_one_line_without_codes() -> None:
    assert printable(f"{RED}\né字\ud800") == "a\\x1b[31m\\rb\\u2028c\\x9bd\\x00\\né字\\ud800"


def test_lines_stay_where_there_are_some() -> None:
    assert without_codes(f"x\n\t{RED}") == "x\n\ta\\x1b[31m\\rb\\u2028c\\x9bd\\x00"


def test_logs_have_no_codes() -> None:
    record = logging.LogRecord("plinth", logging.INFO, "", 0, "rank %s\nsecond line", (RED,), None)
    assert RedactionFilter().filter(record)
    assert record.getMessage() == "rank a\\x1b[31m\\rb\\u2028c\\x9bd\\x00\nsecond line"


@pytest.mark.parametrize("sample_id", ["room\n2026-01-01 ERROR", "room\x1b]0;title\x07"])
def test_ids_in_a_first_cause_stay_in_their_line(sample_id: str) -> None:
    failure = Failure("a1", 0, "node", 1, 0.0, "ValueError", "x\x1b[2Jy", "", 3, [sample_id])
    said = first_cause([failure])
    assert "\x1b" not in said
    assert said.count("\n") == 1
    assert printable(sample_id) in said
