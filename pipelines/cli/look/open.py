"""`homefeed open`: newest verdict page, index of all cycles, Airflow or MLflow, in a browser.

Tested in tests/pipelines/cli/look/test_open.py.
"""

import os
import sys
import webbrowser
from typing import Annotated, Literal

import typer

from pipelines import storage
from pipelines.cli.say import complain, say
from pipelines.contracts.errors import ConfigurationError
from pipelines.overview.addresses import airflow_address, experiments_address
from pipelines.registry import reconcile
from pipelines.settings import Settings


def open_(
    what: Annotated[
        Literal["page", "cycles", "airflow", "mlflow"],
        typer.Argument(help="The newest verdict page, all cycles, or a server's pages."),
    ] = "page",
    only_print: Annotated[bool, typer.Option("--print", help="Only print the address.")] = False,
) -> dict[str, str]:
    """Open the newest verdict page, the index of all cycles, Airflow or MLflow; print the address.

    The index, `cycles.html` in the workspace, is written anew before it is opened.

    Where there is no display, the address is only printed; the exit code is 0 then too.
    """
    settings = Settings()
    address = {
        "page": _newest_page,
        "cycles": _index,
        "airflow": airflow_address,
        "mlflow": experiments_address,
    }[what](settings)
    say(address)
    value = {"address": address}
    if only_print or not _has_display():
        return value
    try:
        is_open = webbrowser.open(address)
    except webbrowser.Error:
        is_open = False
    if not is_open:
        complain("no browser could be started; open the address above yourself")
    return value


def _newest_page(settings: Settings) -> str:
    from pipelines.cycles.reading import newest_page

    workspace_uri = storage.to_uri(settings.workspace_location)
    page = newest_page(workspace_uri, settings)
    if not page:
        raise ConfigurationError(
            f"no cycle of workspace {workspace_uri} has a verdict page; expected one that was "
            f"judged; see what is going on with `homefeed status`, or set HOMEFEED_WORKSPACE"
        )
    return page


def _index(settings: Settings) -> str:
    from pipelines.cycles.index import write_index

    workspace_uri = storage.to_uri(settings.workspace_location)
    reconcile.require_workspace(workspace_uri)
    return write_index(workspace_uri, settings)


def _has_display() -> bool:
    """Return whether a window can be shown: a browser for terminals would take this one."""
    names = ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
    return sys.platform in ("darwin", "win32") or any(map(os.environ.get, names))
