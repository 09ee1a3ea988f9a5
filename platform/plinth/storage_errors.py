"""What a failed request means: transient or not, and the one line that tells the user what to do.

Errors are told by the names of their classes and by the codes of the server's answer, so that no
client library is imported before it is used.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from plinth.errors import StorageError

if TYPE_CHECKING:
    from plinth.storage_options import StorageOptions

_UNREACHABLE = {
    "EndpointConnectionError",
    "ConnectTimeoutError",
    "ClientConnectorError",
    "ConnectionRefusedError",
}
_TRANSIENT = _UNREACHABLE | {
    "ConnectionError", "ConnectionClosedError", "ReadTimeoutError", "HTTPClientError", "TimeoutError",
    "ClientPayloadError", "ServerDisconnectedError", "IncompleteRead", "ResponseStreamingError",
    "ResponseParserError", "ServiceRequestError", "ServiceResponseError",
}  # fmt: skip
_TRANSIENT_CODES = {
    "500", "502", "503", "504", "429", "InternalError", "SlowDown", "ServiceUnavailable", "RequestTimeout",
    "Throttling", "ThrottlingException", "RequestLimitExceeded", "OperationAborted", "IncompleteBody",
    "ConditionalRequestConflict",
}  # fmt: skip
_NO_CREDENTIALS = {
    "NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "TokenRetrievalError",
    "ProfileNotFound",
}  # fmt: skip
_ENVIRONMENT_NAME = re.compile(r"[A-Z_][A-Z0-9_]*")


class MissingKeyError(StorageError):
    """There is no object at that key."""


def is_environment_name(text: str) -> bool:
    """Whether `text` can be the name of an environment variable (upper case: secrets seldom are)."""
    return _ENVIRONMENT_NAME.fullmatch(text) is not None


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed a moment later."""
    names, codes = _class_names(error), _codes(error)
    if names & _NO_CREDENTIALS:
        return False
    return bool(names & _TRANSIENT or codes & _TRANSIENT_CODES)


def is_beyond_the_end(error: BaseException) -> bool:
    """Whether a range was asked that starts after the object's last byte."""
    return bool(_codes(error) & {"InvalidRange", "416"})


def is_taken(error: BaseException) -> bool:
    """Whether an object was to be created where there is one."""
    return isinstance(error, FileExistsError) or bool(_codes(error) & {"PreconditionFailed", "412"})


def is_bare_denial(error: BaseException) -> bool:
    """Whether access was denied without a word of why, as an answer to HEAD is."""
    return isinstance(error, PermissionError) and _codes(error) <= {"403"}


def missing_environment(field: str, name: str) -> StorageError:
    """The error for a credential whose environment variable is not there."""
    return StorageError(
        f"The environment variable {name} (storage.{field}) is not set in this process.",
        f"export {name}=... before starting; with a cluster, before `ray start` on every node.",
    )


def explain(error: Exception, name: str, options: StorageOptions, tries: int) -> StorageError | None:
    """One line for `error` at the URI `name`, or None where it is a bug rather than a user's mistake."""
    names, codes = _class_names(error), _codes(error)
    where = f" at {options.endpoint_url}" if options.endpoint_url else ""
    if names & _NO_CREDENTIALS:
        problem = f"{name}{where}: no usable credentials ({type(error).__name__})."
        fix = "Name variables in storage.access_key_env and storage.secret_key_env, or set storage.profile."
        if not options.endpoint_url:
            fix += " For a store other than AWS set storage.endpoint_url too."
        return StorageError(problem, fix)
    if names & _UNREACHABLE:
        server = options.endpoint_url or "the object store"
        return StorageError(
            f"{name}: {server} cannot be reached ({tries} tries).",
            "Check storage.endpoint_url and the network.",
        )
    access_key = options.access_key_env or "AWS_ACCESS_KEY_ID"
    secret_key = options.secret_key_env or "AWS_SECRET_ACCESS_KEY"
    if "SignatureDoesNotMatch" in codes:
        return StorageError(
            f"{name}{where}: the secret key is wrong for this access key (SignatureDoesNotMatch).",
            f"Check the environment variables {secret_key} and {access_key}.",
        )
    if codes & {"InvalidAccessKeyId", "InvalidToken", "ExpiredToken", "TokenRefreshRequired"}:
        return StorageError(
            f"{name}{where}: the access key or token is not accepted ({_code(codes)}).",
            f"Check the environment variable {access_key}.",
        )
    if "NoSuchBucket" in codes:
        return StorageError(f"{name}{where}: the bucket does not exist.", "Create it or check its name.")
    if isinstance(error, PermissionError):
        detail = f" ({_code(codes)})" if codes else ""
        return StorageError(
            f"{name}{where}: access denied{detail}.", "Check the credentials and their permissions."
        )
    if isinstance(error, FileNotFoundError):
        return MissingKeyError(f"{name} does not exist.")
    if is_transient(error):
        return StorageError(
            f"{name}{where}: still failing after {tries} tries: {_first_line(error)}.",
            "Try again later, or raise storage.retries.",
        )
    if isinstance(error, OSError):
        reason = errno.errorcode.get(error.errno, "") if error.errno is not None else ""
        return StorageError(f"{name}{where}: {_first_line(error)} {reason}".rstrip() + ".")
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what it was translated from."""
    while error is not None:
        yield error
        error = error.__cause__


def _class_names(error: BaseException) -> set[str]:
    return {c.__name__ for link in _chain(error) for c in type(link).__mro__}


def _codes(error: BaseException) -> set[str]:
    """Codes of the server's answer, as botocore and gcsfs carry them."""
    codes = set()
    for link in _chain(error):
        response = getattr(link, "response", None)
        if isinstance(response, dict):
            codes.add(str(response.get("Error", {}).get("Code", "")))
            codes.add(str(response.get("ResponseMetadata", {}).get("HTTPStatusCode", "")))
        if isinstance(getattr(link, "code", None), int):
            codes.add(str(link.code))  # type: ignore[attr-defined]
    return codes - {""}


def _code(codes: set[str]) -> str:
    return max(codes, key=len)  # the word rather than the number


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__} {text[0][:200]}".rstrip(".") if text else type(error).__name__
