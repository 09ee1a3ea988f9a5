"""A proxy on loopback that stands before a real S3 server and does to requests what networks and stores do.

    with FaultProxy(server.endpoint_url) as proxy:
        proxy.inject(Fault(Kind.slow_down, method="GET", key="*/shards/*", count=2))
        ...                                     # storage.endpoint_url=proxy.url
        assert proxy.met == [...]               # which faults met which requests

The client's Host header goes through unchanged, because the signature of a request covers it.
"""

from __future__ import annotations

import contextlib
import fnmatch
import http.client
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

FORWARD_TIMEOUT_S = 60.0
# Headers of one connection; the others belong to the request or its answer.
HOP_BY_HOP = {"connection", "keep-alive", "expect", "transfer-encoding", "content-length"}
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # linger for 0 seconds: close sends RST


class Kind(Enum):
    """What happens to a request."""

    slow_down = "503 SlowDown"
    internal_error = "500 InternalError"
    expired = "400 ExpiredToken"
    reset = "connection reset before the request arrives"
    answer_lost = "connection reset instead of the answer: the request was carried out"
    stall = "nothing comes"
    stall_in_body = "half of the body comes, then nothing"
    truncated = "half of the body comes, then the connection closes"
    shortened = "half of the body comes, with a Content-Length that agrees"
    flipped = "a byte of the body is another one: of the answer, or of what is uploaded"


ANSWERS = {
    Kind.slow_down: (503, "SlowDown", "Please reduce your request rate."),
    Kind.internal_error: (500, "InternalError", "We encountered an internal error."),
    Kind.expired: (400, "ExpiredToken", "The provided token has expired."),
}


@dataclass
class Fault:
    """A fault and the requests that it meets."""

    kind: Kind
    method: str = "*"
    """Glob pattern: GET, HEAD, PUT, POST, DELETE."""
    key: str = "*"
    """Glob pattern of bucket/key; a listing has the bucket alone."""
    count: int | None = 1
    """How many requests it meets; None for all."""
    after: int = 0
    """How many requests that match are let through first."""
    seconds: float = 30.0
    """How long a stall lasts before the connection is closed."""


@dataclass
class FaultProxy(contextlib.AbstractContextManager["FaultProxy"]):
    """See the module's docstring. Closing ends all stalls."""

    upstream: str
    """URL of the real server."""
    met: list[tuple[Kind, str, str]] = field(default_factory=list)
    """(fault, method, bucket/key) of every request that a fault met, in order."""
    passed: list[tuple[str, str]] = field(default_factory=list)
    """(method, bucket/key) of every request, in order."""

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self.closing = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._server.proxy = self  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._server.serve_forever, name="fault-proxy", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """What a client takes for the server."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def inject(self, *faults: Fault) -> None:
        """From now on; the first fault that matches a request and is not used up meets it."""
        with self._lock:
            self._faults.extend(faults)

    def clear(self) -> None:
        """No more faults, and none remembered."""
        with self._lock:
            self._faults.clear()
            self.met.clear()
            self.passed.clear()

    def stop_faults(self) -> None:
        """No more faults; those that there were are remembered."""
        with self._lock:
            self._faults.clear()

    @contextlib.contextmanager
    def injected(self, *faults: Fault) -> Iterator[None]:
        """`inject` for the length of a block that starts and ends without faults."""
        self.clear()
        self.inject(*faults)
        try:
            yield
        finally:
            self.stop_faults()

    def fault_for(self, method: str, key: str) -> Fault | None:
        """The fault that meets this request; counts it."""
        with self._lock:
            self.passed.append((method, key))
            for fault in self._faults:
                if not (fnmatch.fnmatchcase(method, fault.method) and fnmatch.fnmatchcase(key, fault.key)):
                    continue
                if fault.after:
                    fault.after -= 1
                elif fault.count is None or fault.count > 0:
                    fault.count = None if fault.count is None else fault.count - 1
                    self.met.append((fault.kind, method, key))
                    return fault
            return None

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    """One connection of a client, with its own to the server."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.proxy: FaultProxy = self.server.proxy  # type: ignore[attr-defined]
        self.upstream = http.client.HTTPConnection(
            urlsplit(self.proxy.upstream).netloc, timeout=FORWARD_TIMEOUT_S
        )

    def finish(self) -> None:
        with contextlib.suppress(OSError):
            super().finish()
        self.upstream.close()

    def pass_on(self) -> None:
        """Forward the request and its answer, with the fault that meets them."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        key = unquote(urlsplit(self.path).path).strip("/")
        fault = self.proxy.fault_for(self.command, key)
        kind = fault.kind if fault else None
        if kind in ANSWERS:
            self.refuse(*ANSWERS[kind])
        elif kind is Kind.reset:
            self.reset()
        elif fault is not None and kind is Kind.stall:
            self.stall(fault.seconds)
        else:
            flips_upload = kind is Kind.flipped and bool(body)
            answer, content = self.forward(flipped(body) if flips_upload else body)
            self.answer(answer, content, None if flips_upload else fault)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = pass_on

    def forward(self, body: bytes) -> tuple[http.client.HTTPResponse, bytes]:
        """The server's answer and its body."""
        self.upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in HOP_BY_HOP:
                self.upstream.putheader(name, value)
        if body or self.command in ("PUT", "POST"):
            self.upstream.putheader("Content-Length", str(len(body)))
        self.upstream.endheaders(body or None)
        answer = self.upstream.getresponse()
        return answer, answer.read()

    def answer(self, answer: http.client.HTTPResponse, content: bytes, fault: Fault | None) -> None:
        """Hand the answer to the client, as the fault lets it."""
        kind = fault.kind if fault else None
        if kind is Kind.answer_lost:
            self.reset()
            return
        if kind is Kind.flipped:
            content = flipped(content)
        part = content if kind in (None, Kind.flipped) else content[: len(content) // 2]
        declared = len(part if kind is Kind.shortened else content)
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in HOP_BY_HOP:
                self.send_header(name, value)
        if self.command == "HEAD":
            self.send_header("Content-Length", answer.getheader("Content-Length", "0"))
        elif answer.status != http.HTTPStatus.NO_CONTENT:
            self.send_header("Content-Length", str(declared))
        self.end_headers()
        self.wfile.write(part)
        if fault is not None and kind is Kind.stall_in_body:
            self.stall(fault.seconds)
        self.close_connection |= kind is Kind.truncated

    def refuse(self, status: int, code: str, message: str) -> None:
        """An error as S3 words it; an answer to HEAD has no body."""
        content = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
        self.send_response_only(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content.encode())

    def stall(self, seconds: float) -> None:
        """Say nothing more for so long, or until the proxy closes."""
        self.wfile.flush()
        self.proxy.closing.wait(seconds)
        self.close_connection = True

    def reset(self) -> None:
        """Close the connection with a reset."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self.connection.close()
        self.close_connection = True

    def handle(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # the client went away, or we closed on it
            super().handle()

    def log_message(self, *_: Any) -> None:
        """Silence."""


def flipped(content: bytes) -> bytes:
    """The same bytes but for one in the middle."""
    if not content:
        return content
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]
