"""The workspace's pages over http, by Airflow's own web server: `<airflow>/homefeed/`.

Whoever may see the DAG may see them; others are led to Airflow's login. They are read where they
lie, on a disk or a store, and nothing can be written. Scripts do not run in them, whatever text of
people or data they hold. Tested in tests/pipelines/orchestration/test_pages.py and, in a browser,
tests/pipelines/local/test_real_browser.py.
"""

import mimetypes
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pipelines.alerts.links import PAGES
from pipelines.contracts.errors import HomefeedError
from pipelines.contracts.run_layout import CYCLE_INDEX
from pipelines.orchestration.schedule import grid_of
from pipelines.plain_text import one_line
from pipelines.settings import DAG_ID, Settings

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.responses import Response

KINDS = (".html", ".png", ".svg", ".css", ".json", ".txt")
"""Ends of names of what is shown: what people look at, and never a model or rows."""
REFRESH_S = 60
_SAFE = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline' 'self'; "
    "img-src 'self' data:; frame-ancestors 'self'; form-action 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}


@cache
def make_app() -> "FastAPI":
    """Return the application; every process of Airflow's reads the plugin, and one needs this."""
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.core_api.security import requires_access_dag
    from fastapi import Depends, FastAPI, HTTPException, Request
    from fastapi.responses import RedirectResponse

    app = FastAPI(title="homefeed_retrain", docs_url=None, redoc_url=None, openapi_url=None)
    may_see = [Depends(requires_access_dag("GET", param_dag_id=DAG_ID))]

    @app.exception_handler(401)
    def log_in(request: Request, _: Exception) -> RedirectResponse:
        login = get_auth_manager().get_url_login()
        return RedirectResponse(f"{login}?next={quote(str(request.url), safe='')}")

    @app.get("/", dependencies=may_see)
    def home(request: Request) -> RedirectResponse:
        return RedirectResponse(f"{request.scope['root_path']}/{PAGES}/{CYCLE_INDEX}")

    @app.get(f"/{PAGES}/{{path:path}}", dependencies=may_see)
    def page(path: str) -> "Response":
        try:
            return respond(path, Settings())
        except FileNotFoundError:
            raise HTTPException(404, f"no page {path!r}; it was deleted, or never was") from None
        except HomefeedError as error:
            raise HTTPException(503, one_line(str(error))) from None

    return app


def respond(path: str, settings: Settings) -> "Response":
    """Return a page of the workspace; the index of all cycles is made anew, and asks itself again.

    Raises:
        FileNotFoundError: there is none, or the path leads elsewhere.
        HomefeedError: the storage failed.
    """
    from starlette.responses import Response

    from pipelines import storage
    from pipelines.cycles.index import read_index
    from validation.report.cycles_page import render_cycles

    workspace_uri, headers = settings.workspace_uri, dict(_SAFE)
    if path == CYCLE_INDEX:
        headers["Refresh"] = str(REFRESH_S)
        facts, now = read_index(workspace_uri, settings), datetime.now(UTC)
        facts = facts.model_copy(update={"next_due": grid_of(settings).at_or_after(now)})
        return Response(render_cycles(facts, now), media_type="text/html", headers=headers)
    parts = path.split("/")
    if not path.endswith(KINDS) or any(part.startswith(".") or not part for part in parts):
        raise FileNotFoundError(path)
    kind = mimetypes.guess_type(path)[0] or "text/plain"
    return Response(
        storage.read_bytes(storage.join(workspace_uri, *parts)), media_type=kind, headers=headers
    )


async def serve(scope: Any, receive: Any, send: Any) -> None:
    """Answer as an ASGI application, which is made when it is asked for the first time."""
    await make_app()(scope, receive, send)
