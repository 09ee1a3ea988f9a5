"""What a failed request means: transient or not, and one line that tells the user what to do.

Errors are recognised by their class names and by the codes in the server's answer, so that no client library
is imported before it is used.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator

from plinth.errors import StorageError
from plinth.storage.options import StorageOptions

_UNREACHABLE = {
    "EndpointConnectionError",
    "ConnectTimeoutError",
    "ClientConnectorError",
    "ConnectionRefusedError",
}
_TRANSIENT = _UNREACHABLE | {
    "ConnectionError", "ConnectionClosedError", "ReadTimeoutError", "HTTPClientError", "TimeoutError",
    "ClientPayloadError", "ClientConnectionError", "ServerDisconnectedError", "IncompleteRead",
    "ResponseStreamingError", "ResponseParserError", "CutShortError",
    "Timeout", "ChunkedEncodingError", "ChecksumError",  # gcsfs and requests
    "ServiceRequestError", "ServiceResponseError", "IncompleteReadError",  # Azure
}  # fmt: skip
_TRANSIENT_CODES = {
    "408", "429", "500", "502", "503", "504", "InternalError", "SlowDown", "ServiceUnavailable",
    "RequestTimeout", "Throttling", "ThrottlingException", "RequestLimitExceeded", "OperationAborted",
    "ConditionalRequestConflict", "IncompleteBody", "BadDigest", "XAmzContentSHA256Mismatch",
    "ServerBusy", "OperationTimedOut", "Md5Mismatch",  # Azure
}  # fmt: skip
_NO_CREDENTIALS = {
    "NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "TokenRetrievalError",
    "ProfileNotFound", "UnauthorizedSSOTokenError", "SSOTokenLoadError",
    "DefaultCredentialsError", "RefreshError",  # Google
    "CredentialUnavailableError",  # Azure
}  # fmt: skip
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"}
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT}
_HTTP_ERROR = re.compile(r"[45][0-9]{2}")


class MissingKeyError(StorageError):
    """There is no object at that key."""


class CutShortError(Exception):
    """An answer that was shorter than announced."""


def check_length(got: int, expected: int) -> None:
    """Detect an answer that was cut short, which is worth a retry.

    Raises:
        CutShortError: the lengths differ.
    """
    if got != expected:
        raise CutShortError(f"{got} of {expected} bytes came")


def of_length(content: bytes, expected: int) -> bytes:
    """`content`, checked by `check_length`."""
    check_length(len(content), expected)
    return content


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed a moment later."""
    names, codes = _class_names(error), _codes(error)
    if names & _NO_CREDENTIALS:
        return False
    return bool(names & _TRANSIENT or codes & _TRANSIENT_CODES)


def is_beyond_the_end(error: BaseException) -> bool:
    """Whether the requested range starts after the object's last byte."""
    return bool(_codes(error) & {"InvalidRange", "416"})


def is_taken(error: BaseException) -> bool:
    """Whether an object could not be created because there is one."""
    return isinstance(error, FileExistsError) or bool(_codes(error) & {"PreconditionFailed", "412"})


def is_bare_refusal(error: BaseException) -> bool:
    """Whether a request was refused without a reason, as HEAD is: 403, or 400 for an expired token."""
    codes = _codes(error)
    return codes == {"400"} or (isinstance(error, PermissionError) and codes <= {"403"})


def explain(
    error: Exception, name: str, options: StorageOptions, tries: int, folder: str = ""
) -> StorageError | None:
    """One line for `error` at the URI `name`, or None where it is a bug and not a user's mistake.

    Args:
        folder: where the operation writes on this machine.
    """
    names, codes = _class_names(error), _codes(error)
    where = f"{name} at {options.endpoint_url}" if options.endpoint_url else name
    full = next((e.errno for e in _chain(error) if isinstance(e, OSError) and e.errno in _DISK_FULL), None)
    if full is not None:
        return StorageError(
            f"{folder or name}: the disk is full ({errno.errorcode[full]}). No half-written file is left.",
            "Free space there or name another folder, then run the same command again.",
        )
    if refusal := _explain_refusal(error, names, codes, where, options):
        return refusal
    if names & _UNREACHABLE:
        server = options.endpoint_url or "the object store"
        return StorageError(
            f"{name}: {server} cannot be reached or drops the connection ({tries} tries).",
            "Check storage.endpoint_url and the network.",
        )
    if isinstance(error, FileNotFoundError) or "404" in codes:
        return MissingKeyError(f"{name} does not exist.")
    if is_transient(error):
        return StorageError(
            f"{where}: still failing after {tries} tries: {_coded(codes)}{_first_line(error)}.",
            "Try again later, or raise storage.retries.",
        )
    if codes:
        return StorageError(f"{where}: the request was refused: {_coded(codes)}{_first_line(error)}.")
    if isinstance(error, OSError):
        reason = errno.errorcode.get(error.errno, "") if error.errno is not None else ""
        return StorageError(f"{where}: {_first_line(error)} {reason}".rstrip() + ".")
    return None


def _explain_refusal(
    error: Exception, names: set[str], codes: set[str], where: str, options: StorageOptions
) -> StorageError | None:
    """The fault in credentials, rights or the bucket, if there is one."""
    access_key = options.access_key_env or "AWS_ACCESS_KEY_ID"
    secret_key = options.secret_key_env or "AWS_SECRET_ACCESS_KEY"
    if names & _NO_CREDENTIALS:
        problem = f"{where}: no usable credentials ({type(error).__name__})."
        fix = "Name variables in storage.access_key_env and storage.secret_key_env, or set storage.profile."
        if not options.endpoint_url:
            fix += " For a store other than AWS set storage.endpoint_url too."
        return StorageError(problem, fix)
    if "SignatureDoesNotMatch" in codes:
        return StorageError(
            f"{where}: the secret key is wrong for this access key (SignatureDoesNotMatch).",
            f"Check the environment variables {secret_key} and {access_key}.",
        )
    if codes & _EXPIRED:
        variables = " and ".join(filter(None, (access_key, secret_key, options.session_token_env)))
        return StorageError(
            f"{where}: the credentials have expired ({_code(codes & _EXPIRED)}).",
            f"Renew them ({variables}, or the profile), then run the same command again.",
        )
    if codes & {"InvalidAccessKeyId", "InvalidToken"}:
        return StorageError(
            f"{where}: the access key or token is not accepted ({_code(codes)}).",
            f"Check the environment variable {access_key}.",
        )
    if "NoSuchBucket" in codes:
        return StorageError(f"{where}: the bucket does not exist.", "Create it or check its name.")
    if isinstance(error, PermissionError) or codes & {"401", "403"}:
        detail = f" ({_code(codes)})" if codes else ""
        return StorageError(
            f"{where}: access denied{detail}.", "Check the credentials and their permissions."
        )
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and its causes."""
    while error is not None:
        yield error
        error = error.__cause__


def _class_names(error: BaseException) -> set[str]:
    return {c.__name__ for link in _chain(error) for c in type(link).__mro__}


def _codes(error: BaseException) -> set[str]:
    """Codes of the server's answer: words and HTTP status."""
    codes = set()
    for link in _chain(error):
        response = getattr(link, "response", None)
        if isinstance(response, dict):  # botocore
            codes.add(str(response.get("Error", {}).get("Code", "")))
            codes.add(str(response.get("ResponseMetadata", {}).get("HTTPStatusCode", "")))
            continue
        codes.add(str(getattr(link, "error_code", None) or ""))  # Azure; a text or an Enum of texts
        field = "code" if type(link).__name__ == "HttpError" else "status"  # gcsfs; aiohttp
        status = str(getattr(link, "status_code", getattr(link, field, "")))
        codes.add(status if _HTTP_ERROR.fullmatch(status) else "")
    return codes - {""}


def _code(codes: set[str]) -> str:
    return max(codes, key=len)  # the word rather than the number


def _coded(codes: set[str]) -> str:
    return f"{_code(codes)}, " if codes else ""


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__} {text[0][:200]}".rstrip(".") if text else type(error).__name__
