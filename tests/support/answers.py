"""A server with the same answer to everything, whoever asks: a proxy, a login page, no MLflow."""

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager

PAGE = b"<html>a proxy's page</html>"


@contextmanager
def server_that_answers(status: int, body: bytes = b"") -> Iterator[str]:
    """Give the address of a server with one answer."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

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
