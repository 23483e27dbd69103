"""A proxy before a real HTTP server that spoils some of the requests, as networks do.

Faults: the request never arrives; the answer is lost after the server did its work; the answer is
500; the connection is reset; the answer is cut off in the middle; the answer comes late. A fault
may also be the name of one of the `answers`, which is given in place of the server's.
"""

import contextlib
import http.client
import itertools
import random
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from socket import SO_LINGER, SOL_SOCKET
from urllib.parse import urlsplit

from support.serving import Handler, http_server

FAULTS = ("request lost", "answer lost", "500", "reset", "truncated", "stalled")


def error_xml(code: str, message: str = "Told by a test.", **more: str) -> bytes:
    """Return the body of an error as S3 writes it."""
    parts = "".join(f"<{name}>{value}</{name}>" for name, value in more.items())
    head = '<?xml version="1.0" encoding="UTF-8"?>'
    return f"{head}<Error><Code>{code}</Code><Message>{message}</Message>{parts}</Error>".encode()


ANSWERS = {
    "InternalError": (500, error_xml("InternalError", "We encountered an internal error.")),
    "SlowDown": (503, error_xml("SlowDown", "Please reduce your request rate.")),
}
"""What S3 says when it may be asked again."""


@dataclass
class FaultyProxy:
    """`choose` says for each request (method and path) which fault it meets; '' is none."""

    server_url: str
    choose: Callable[[str, str], str] = lambda method, path: ""
    url: str = ""
    met: list[tuple[str, str]] = field(default_factory=list)
    stall_s: float = 0.3
    answers: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    """By the name of a fault: status and body (XML) that the client gets, whatever was asked."""

    def lose(self, path: str, fault: str, times: int = 1) -> None:
        """Spoil the next requests whose path ends so."""
        left = [fault] * times

        def choose(method: str, found: str) -> str:
            return left.pop() if left and urlsplit(found).path.endswith(path) else ""

        self.choose = choose

    def spoil(self, share: float, seed: int) -> None:
        """Spoil a share of all requests, drawn with a seed."""
        draw = random.Random(seed)
        self.choose = lambda method, path: draw.choice(FAULTS) if draw.random() < share else ""

    def spoil_every(self, number: int, fault: str) -> None:
        """Spoil every so many-th request in one way."""
        count = itertools.count(1)
        self.choose = lambda method, path: "" if next(count) % number else fault

    def mend(self) -> None:
        """Spoil nothing any more."""
        self.choose = lambda method, path: ""


@contextlib.contextmanager
def faulty_proxy(server_url: str) -> Iterator[FaultyProxy]:
    """Start a proxy on a port of its own, and end it."""
    proxy = FaultyProxy(server_url)

    with http_server(_Handler, owner=proxy) as proxy.url:
        yield proxy


class _Handler(Handler):
    owner: FaultyProxy
    protocol_version = "HTTP/1.0"

    def _pass_on(self) -> None:
        body = self._read_body()
        fault = self.owner.choose(self.command, self.path)
        if fault:
            self.owner.met.append((fault, f"{self.command} {urlsplit(self.path).path}"))
        if fault == "request lost":
            self.close_connection = True
            return
        if fault == "500":
            self.send_error(500)
            return
        if fault in self.owner.answers:
            status, content = self.owner.answers[fault]
            self.answer(status, content, Content_Type="application/xml")
            return
        status, headers, content = self._ask(body)
        if fault == "stalled":
            threading.Event().wait(self.owner.stall_s)
        if fault == "reset":
            self.connection.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        if fault in ("answer lost", "reset"):
            self.close_connection = True
            return
        sent = content[: len(content) // 2] if fault == "truncated" else content
        self.close_connection = self.close_connection or sent != content
        self._answer(status, headers, sent, len(content))

    def _read_body(self) -> bytes:
        """Return what was sent, also by a client that waits for a word or sends it in chunks."""
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        found = b""
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass  # What follows the last chunk says nothing that is needed here.
        return found

    def _answer(
        self, status: int, headers: list[tuple[str, str]], content: bytes, num_bytes: int
    ) -> None:
        """Send an answer whose header promises so many bytes."""
        self.send_response(status)
        # An answer to HEAD has the size of what it does not send.
        size = dict((name.lower(), value) for name, value in headers).get("content-length", "0")
        for name, value in headers:
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, value)
        is_head = self.command == "HEAD"
        self.send_header("Content-Length", size if is_head else str(num_bytes))
        self.end_headers()
        if not is_head:
            self.wfile.write(content)

    def _ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        parts = urlsplit(self.owner.server_url)
        line = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=60)
        # Whatever its case, there must be one host only. The body is passed on in one piece.
        left_out = ("connection", "host", "expect", "transfer-encoding", "content-length")
        headers = {k: v for k, v in self.headers.items() if k.lower() not in left_out}
        headers["Host"] = parts.netloc
        line.request(self.command, self.path, body, headers)
        answer = line.getresponse()
        content = answer.read()
        line.close()
        return answer.status, answer.getheaders(), content

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _pass_on
