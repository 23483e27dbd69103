"""`homefeed serving`, `history` and `rollback`: which model serves, served, and shall serve.

Tested in tests/pipelines/cli/test_main.py.
"""

from datetime import UTC, datetime
from typing import Annotated

import typer

from pipelines import storage
from pipelines.contracts.time import parse_instant
from pipelines.registry import promotion, tracking
from pipelines.registry.history import read, serving_at
from pipelines.settings import Settings

app = typer.Typer()


@app.command()
def serving(
    at: Annotated[str, typer.Option(help="Instant (ISO 8601, UTC); now by default.")] = "",
) -> None:
    """Say which model was serving at an instant."""
    settings = Settings()
    instant = parse_instant(at, "--at") if at else datetime.now(UTC)
    workspace_uri = storage.to_uri(settings.workspace_location)
    entry = serving_at(workspace_uri, settings.registered_model, instant)
    typer.echo(f"{entry.model.label} (as_of {entry.model.as_of:%Y-%m-%d}), since {entry.moved_at}")


@app.command()
def history() -> None:
    """List every move of the champion, oldest first."""
    settings = Settings()
    workspace_uri = storage.to_uri(settings.workspace_location)
    for _, entry in read(workspace_uri, settings.registered_model):
        typer.echo(
            f"{entry.moved_at:%Y-%m-%dT%H:%M:%SZ}  {entry.kind:9}  {entry.model.label} "
            f"(as_of {entry.model.as_of:%Y-%m-%d})  {entry.reason}"
        )


@app.command()
def rollback(
    to_version: Annotated[str, typer.Option(help="Version; the one before by default.")] = "",
    reason: Annotated[str, typer.Option(help="For the history.")] = "rolled back by hand",
) -> None:
    """Point the champion back at an earlier version."""
    settings = Settings()
    client = tracking.connect(settings.tracking_uri)
    now = datetime.now(UTC)
    entry = promotion.rollback(client, settings, to_version or None, now, reason)
    typer.echo(f"champion: {entry.model.label} (was {entry.previous and entry.previous.label})")
