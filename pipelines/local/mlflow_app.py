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
App = Callable[[Message, Callable[..., Any], Callable[..., Any]], Awaitable[None]]


def create_app() -> App:
    """Return MLflow's server, for the origins that were given as `--cors-allowed-origins`.

    It answers 403 to every request from a page of another origin.
    """
    from mlflow.server.fastapi_app import app
    from starlette.responses import PlainTextResponse

    origins = os.environ["MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"].split(",")

    async def own_origins_only(
        scope: Message, receive: Callable[..., Any], send: Callable[..., Any]
    ) -> None:
        headers = dict(scope["headers"]) if scope["type"] == "http" else {}
        origin = headers.get(b"origin", b"").decode("latin-1")
        if b"origin" not in headers or origin in origins:
            await app(scope, receive, send)
            return
        text = (
            f"a page of {origin} may not use this MLflow server; expected a page of "
            f"{' or '.join(sorted(origins))}; open MLflow at one of these addresses\n"
        )
        refusal = PlainTextResponse(text, 403, {"x-content-type-options": "nosniff"})
        await refusal(scope, receive, send)

    return own_origins_only
