"""MLflow's server for one machine: only its own pages may use it.

`mlflow server` lets a page of any port of `localhost` write, whatever `--cors-allowed-origins` is,
and another program's page on this machine is such a page. So this server refuses by itself what
comes from a page whose origin is not in that list. Requests of programs name no origin, and pass.

`mlflow server --app-name own-origins` finds it by the entry point in `mlflow_plugin/`. That folder
is on the path of the local server only, because the app is of no use to another one. Not for
production. Tested in tests/pipelines/local/test_real_mlflow.py.
"""

import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


class OwnOriginsOnly:
    """An ASGI server that answers 403 to every request from a page of another origin.

    Args:
        app: the server behind it.
        origins: those whose pages may send requests, as `http://127.0.0.1:5000`.
    """

    def __init__(self, app: App, origins: frozenset[str]) -> None:
        self._app = app
        self._origins = origins

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        origin = _origin_of(scope)
        if origin is None or origin in self._origins:
            await self._app(scope, receive, send)
            return
        text = (
            f"a page of {origin} may not use this MLflow server; expected a page of "
            f"{' or '.join(sorted(self._origins))}; open MLflow at one of these addresses\n"
        )
        headers = [(b"content-type", b"text/plain"), (b"x-content-type-options", b"nosniff")]
        await send({"type": "http.response.start", "status": 403, "headers": headers})
        await send({"type": "http.response.body", "body": text.encode()})


def _origin_of(scope: Message) -> str | None:
    if scope["type"] != "http":
        return None
    found = [value for name, value in scope["headers"] if name == b"origin"]
    return found[0].decode("latin-1") if found else None


def create_app() -> OwnOriginsOnly:
    """Return MLflow's server, for the origins that were given as `--cors-allowed-origins`."""
    from mlflow.server.fastapi_app import app

    origins = os.environ["MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"].split(",")
    return OwnOriginsOnly(app, frozenset(origins))
