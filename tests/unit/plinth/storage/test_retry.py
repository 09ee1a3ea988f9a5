"""Which failures are tried again, in the shapes in which the clients of all stores raise them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from plinth.errors import StorageError
from plinth.storage.options import StorageOptions
from plinth.storage.retry import retry


class WithFields(Exception):
    """An error of a client library, known by the name of its class and by its fields."""

    def __init__(self, message: str, **fields: object) -> None:
        super().__init__(message)
        vars(self).update(fields)


def foreign(name: str, message: str = "message", **fields: object) -> Exception:
    """What gcsfs, adlfs, azure and aiohttp raise, without their packages."""
    return type(name, (WithFields,), {})(message, **fields)


@pytest.mark.parametrize(
    "error",
    [
        foreign("HttpError", code=503),  # gcsfs
        foreign("HttpError", code="429"),
        foreign("ChecksumError"),
        foreign("HttpResponseError", status_code=500, error_code=None),  # azure
        foreign("HttpResponseError", status_code=503, error_code="ServerBusy"),
        foreign("ServiceResponseError"),
        foreign("ClientResponseError", status=502),  # aiohttp
        foreign("ClientConnectionError"),
        foreign("ClientPayloadError"),
        ConnectionResetError(104, "Connection reset by peer"),
        TimeoutError(),
    ],
    ids=repr,
)
def test_transient_errors_are_retried(error: Exception) -> None:
    tries = []

    def fails_twice() -> str:
        tries.append(1)
        if len(tries) < 3:
            raise error
        return "done"

    options = StorageOptions(retries=2, backoff_s=0.0)
    assert retry(fails_twice, "gs://bucket/key", options) == "done"
    tries.clear()
    with pytest.raises(StorageError, match=r"gs://bucket/key: still failing after 2 tries"):
        retry(fails_twice, "gs://bucket/key", replace(options, retries=1))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (foreign("HttpError", "Invalid Credentials, 401", code=401), r"access denied \(401\)"),
        (foreign("RefreshError"), r"no usable credentials \(RefreshError\)"),
        (
            foreign("ClientAuthenticationError", status_code=403, error_code="AuthenticationFailed"),
            r"access denied \(AuthenticationFailed\)",
        ),
        (foreign("HttpResponseError", status_code=404, error_code="BlobNotFound"), "key does not exist"),
        (
            foreign("HttpResponseError", "Not here.\nSecond line", status_code=409, error_code="LeaseHeld"),
            r"refused: LeaseHeld, HttpResponseError Not here",
        ),
        (foreign("ClientResponseError", status=400), r"refused: 400, ClientResponseError"),
    ],
    ids=repr,
)
def test_permanent_errors_are_not_retried(error: Exception, message: str) -> None:
    tries = []

    def fails() -> None:
        tries.append(1)
        raise error

    with pytest.raises(StorageError, match=message) as caught:
        retry(fails, "az://container/key", StorageOptions())
    assert len(tries) == 1
    assert "\n" not in str(caught.value)


def test_only_answers_have_codes() -> None:
    """aiohttp gives a body that ended early the code 400, which no server has answered."""

    def fails() -> None:
        raise foreign("ClientPayloadError", "not completed") from foreign("ContentLengthError", code=400)

    with pytest.raises(StorageError, match=r"after 1 tries: ClientPayloadError not completed"):
        retry(fails, "s3://bucket/key", StorageOptions(retries=0))
