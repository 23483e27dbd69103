"""`homefeed status`, `doctor` and `open`: looks at a deployment, and changes nothing.

Tested in tests/pipelines/cli/test_look.py.
"""

import os
import sys
import webbrowser
from datetime import UTC, datetime
from typing import Annotated, Literal

import typer

from pipelines import storage
from pipelines.cli.printing import Commands, complain, say, say_all, say_value
from pipelines.contracts.errors import ConfigurationError
from pipelines.settings import Settings

app = Commands()


@app.command()
def status(
    num: Annotated[int, typer.Option(min=1, help="How many cycles and alerts at most.")] = 5,
) -> None:
    """Say what serves, what the last cycles came to, and when the next one is due.

    What can be found out is printed in any case. The exit code is 75 where MLflow or the workspace
    cannot be reached, 78 where a setting is wrong, and 0 otherwise.
    """
    from pipelines.overview.status import lines_of, read_status

    found, errors = read_status(Settings(), datetime.now(UTC), num)
    say_all(lines_of(found))
    say_value(found)
    if errors:
        raise errors[0]


@app.command()
def doctor() -> None:
    """Say what is set, reachable, writable and installed here, and what is wrong.

    The exit code is 0 where nothing is wrong, and 78 otherwise. Secrets are never shown.
    """
    from pipelines.overview.doctor import diagnose, lines_of

    found = diagnose(datetime.now(UTC))
    say_all(lines_of(found))
    say_value(found)
    if found.wrong:
        raise ConfigurationError(
            f"{len(found.wrong)} thing(s) are wrong here; change what is told above, then run "
            f"`homefeed doctor` again"
        )


@app.command("open")
def open_(
    what: Annotated[
        Literal["page", "cycles", "airflow", "mlflow"],
        typer.Argument(help="The newest verdict page, all cycles, or a server's pages."),
    ] = "page",
    only_print: Annotated[bool, typer.Option("--print", help="Only print the address.")] = False,
) -> dict[str, str]:
    """Open the newest verdict page, the index of all cycles, Airflow or MLflow; print the address.

    The index, `cycles.html` in the workspace, is written anew before it is opened. Where there is
    no display, the address is only printed; the exit code is 0 then too.
    """
    address = _address_of(what, Settings())
    say(address)
    # A browser for terminals would take this one.
    has_display = sys.platform in ("darwin", "win32") or any(
        map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"))
    )
    if not only_print and has_display:
        try:
            is_open = webbrowser.open(address)
        except webbrowser.Error:
            is_open = False
        if not is_open:
            complain("no browser could be started; open the address above yourself")
    return {"address": address}


def _address_of(what: str, settings: Settings) -> str:
    from pipelines.cycles.index import write_index
    from pipelines.cycles.reading import newest_page
    from pipelines.overview.addresses import addresses_of
    from pipelines.registry import reconcile

    workspace_uri = storage.to_uri(settings.workspace_location)
    if what in ("airflow", "mlflow"):
        return addresses_of(settings)["Airflow" if what == "airflow" else "MLflow"]
    if what == "cycles":
        reconcile.require_workspace(workspace_uri)
        return write_index(workspace_uri, settings)
    if not (page := newest_page(workspace_uri, settings)):
        raise ConfigurationError(
            f"no cycle of workspace {workspace_uri} has a verdict page; expected one that was "
            f"judged; see what is going on with `homefeed status`, or set HOMEFEED_WORKSPACE"
        )
    return page
