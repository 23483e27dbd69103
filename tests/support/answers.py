"""A server with the same answer to everything, whoever asks: a proxy, a login page, no MLflow."""

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager

PAGE = b"<html>a proxy's page</html>"


@contextmanager
def server_that_answers(
    status: int,
    body: bytes = b"",
    of_version: tuple[int, bytes] | None = None,
    of_search: tuple[int, bytes] | None = None,
    token: str = "",
) -> Iterator[str]:
    """Give the address of a server with one answer.

    Args:
        status: Of the answer.
        body: Of the answer.
        of_version: Another answer for `/version`.
        of_search: Another answer for a search of experiments.
        token: What everybody has to bring; who does not gets 401, and JSON that is not MLflow's.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            of_this = (status, body)
            if of_version is not None and self.path == "/version":
                of_this = of_version
            if of_search is not None and "/experiments/search" in self.path:
                of_this = of_search
            if token and self.headers.get("Authorization") != f"Bearer {token}":
                of_this = (401, b'{"message": "no token"}')
            self.send_response(of_this[0])
            self.send_header("Content-Length", str(len(of_this[1])))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(of_this[1])

        do_HEAD = do_GET

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.do_GET()

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
