"""A server with the same answer to everything, whoever asks: a proxy, a login page, no MLflow."""

from collections.abc import Iterator
from contextlib import contextmanager

from support.serving import Handler, http_server

PAGE = b"<html>a proxy's page</html>"


@contextmanager
def server_that_answers(status: int, body: bytes = b"") -> Iterator[str]:
    """Give the address of a server with one answer."""

    def answer(handler: Handler) -> None:
        handler.body()
        handler.answer(status, body)

    with http_server(Handler, do_GET=answer, do_HEAD=answer, do_POST=answer) as url:
        yield url
