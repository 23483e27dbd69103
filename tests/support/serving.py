"""Servers of tests on 127.0.0.1: processes that are waited for and ended, and handlers in here."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(
    is_so: Callable[[], Any], timeout_s: float = 20.0, what: Callable[[], str] = lambda: "it"
) -> Any:
    """Wait for something that a server does, and return it; `what` says what did not happen."""
    end = time.monotonic() + timeout_s
    while not (found := is_so()):
        assert time.monotonic() < end, f"not within {timeout_s:g} s: {what()}"
        time.sleep(0.05)
    return found


def answers(url: str) -> bool:
    """Return whether a page is there."""
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(url, timeout=2).status_code == 200
    return False


@dataclass
class Process:
    """A server that is a process, and can be ended and started again with what it held.

    Attributes:
        command: The words that start it.
        log: File that gets what it says.
        page: A page of it that is there once it answers.
        options: Further options of `subprocess.Popen`.
        timeout_s: How long to wait until it answers.
    """

    command: Sequence[str]
    log: Path
    page: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    timeout_s: float = 90.0
    process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        """Start it, and wait until it answers.

        Raises:
            AssertionError: it ended, or does not answer in time; with the end of its log.
        """
        with self.log.open("ab") as log:
            process = self.process = subprocess.Popen(
                self.command, stdout=log, stderr=log, start_new_session=True, **self.options
            )

        def is_over() -> bool:
            assert process.poll() is None, f"it ended with {process.returncode}: {self.tail()}"
            return self.is_up()

        wait_until(is_over, self.timeout_s, self.tail)

    def is_up(self) -> bool:
        """Return whether it answers."""
        return answers(self.page)

    def tail(self) -> str:
        """Return the command's first words and the end of its log."""
        return f"{' '.join(self.command[:4])}: {self.log.read_text(errors='replace')[-2000:]}"

    def end(self, how: signal.Signals = signal.SIGTERM, timeout_s: float = 20.0) -> None:
        """Send it, and what it has started, a signal; what takes longer to end is killed."""
        if self.process is None or self.process.poll() is not None:
            return
        self.send(how)
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:  # a busy machine; how it ends is not tested
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def send(self, how: signal.Signals) -> None:
        """Send a signal to it, and to what it has started."""
        assert self.process is not None
        os.killpg(self.process.pid, how)

    def restart(self, how: signal.Signals = signal.SIGTERM, pause_s: float = 0.0) -> None:
        """End it, and start it again after a pause."""
        self.end(how)
        time.sleep(pause_s)
        self.start()

    @contextlib.contextmanager
    def running(self, how: signal.Signals = signal.SIGTERM) -> Iterator[None]:
        """Start it for the block."""
        try:
            self.start()
            yield
        finally:
            self.end(how)


class Handler(BaseHTTPRequestHandler):
    """Answers requests in this process, and says nothing of them."""

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def answer(self, status: int, content: bytes = b"", **headers: str) -> None:
        """Send an answer; `_` in a header's name stands for `-`."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: who asked may have gone, or the connection was broken on purpose."""


@contextlib.contextmanager
def beside(*works: Callable[[], object], end: Callable[[], object] = int) -> Iterator[None]:
    """Do works in threads of their own while the block runs; after `end` they return."""
    with ThreadPoolExecutor(len(works)) as threads:
        begun = [threads.submit(work) for work in works]
        try:
            yield
        finally:
            end()
    for each in begun:
        each.result()


@contextlib.contextmanager
def http_server(handler: type[BaseHTTPRequestHandler], **attributes: object) -> Iterator[str]:
    """Serve by a handler's class, which is given these attributes; give the address."""
    made = type("Made", (handler,), attributes)
    with _Server(("127.0.0.1", 0), made) as server:
        with beside(lambda: server.serve_forever(0.02), end=server.shutdown):
            yield f"http://127.0.0.1:{server.server_port}"
