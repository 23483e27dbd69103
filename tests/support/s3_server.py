"""A real S3 server on localhost for tests: moto 5.2 over HTTP, in a process of its own.

moto's server honours `If-None-Match` and `If-Match` of PutObject, and is spoken to by pyarrow's and
obstore's own S3 clients over TCP. It looks and writes in two steps, on a thread for each request,
so the requests pass one lock here: S3 decides a conditional write in one step.

Run as a script it serves until it is ended, and prints its port first. With the word
`deaf` it drops the conditions of every request, as stores do that know none; with `without` it
answers 501 to them; `bare` takes an ETag of `If-Match` without quotes only, as Ceph's gateway does.
"""

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, Literal

import httpx
import pytest

Manner = Literal["honest", "deaf", "without", "bare"]
BUCKET = "homefeed"
_CONDITIONS = ("HTTP_IF_MATCH", "HTTP_IF_NONE_MATCH")


@contextlib.contextmanager
def s3_server(manner: Manner = "honest") -> Iterator[str]:
    """Start a server with one bucket, give its URL, and end it by its process id."""
    server = subprocess.Popen(
        [sys.executable, __file__, manner],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"},
    )
    try:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{int(server.stdout.readline())}"
        httpx.put(f"{url}/{BUCKET}", timeout=30).raise_for_status()
        yield url
    finally:
        server.kill()
        server.communicate()


def use_s3(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process and its children find the server as a person would: by environment."""
    for name, value in environment(url).items():
        monkeypatch.setenv(name, value)


def environment(url: str) -> dict[str, str]:
    """Return the variables that lead both S3 clients to the server."""
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
    }


def _serve(manner: str) -> None:
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    # The connection stays open, as with a real server: a client that must connect anew for every
    # request is not what runs in production.
    WSGIRequestHandler.protocol_version = "HTTP/1.1"
    inner = DomainDispatcherApplication(create_backend_app)
    one_at_a_time = threading.Lock()

    def application(environ: dict[str, Any], start_response: Callable) -> list[bytes]:
        if manner == "deaf":
            for name in _CONDITIONS:
                environ.pop(name, None)
        if manner == "without" and any(name in environ for name in _CONDITIONS):
            start_response("501 Not Implemented", [("Content-Type", "application/xml")])
            return [b"<Error><Code>NotImplemented</Code><Message>No conditions</Message></Error>"]
        if (e_tag := environ.get("HTTP_IF_MATCH")) and manner == "bare":
            is_known = not e_tag.startswith('"')
            environ["HTTP_IF_MATCH"] = f'"{e_tag}"' if is_known else '"none"'
        with one_at_a_time:
            return list(inner(environ, start_response))

    server = make_server("127.0.0.1", 0, application, threaded=True)
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    _serve(sys.argv[1])
