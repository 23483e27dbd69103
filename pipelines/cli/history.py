"""`homefeed serving` and `history`: which model serves, what served, and whether that is true.

Both ask the registry too, and end with an error after what they know, where the two disagree.
Tested in tests/pipelines/cli/test_history.py.
"""

from datetime import UTC, datetime
from typing import Annotated

import typer

from pipelines import storage
from pipelines.cli.say import say
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.time import parse_instant
from pipelines.registry import history as record
from pipelines.registry import reconcile, tracking
from pipelines.settings import Settings

app = typer.Typer(
    invoke_without_command=True, help="List every move of the champion, in order; or mend the list."
)


def serving(
    at: Annotated[str, typer.Option(help="Instant (ISO 8601, UTC); now by default.")] = "",
) -> None:
    """Say which model was serving at an instant."""
    settings = Settings()
    instant = parse_instant(at, "--at") if at else datetime.now(UTC)
    workspace_uri = _workspace(settings)
    known = record.load(workspace_uri, settings.registered_model)
    say(f"workspace: {workspace_uri}")
    entry = record.serving_at(known, settings.registered_model, instant)
    say(f"{entry.model.label} (as_of {entry.model.as_of:%Y-%m-%d}), since {entry.moved_at}")
    _hold_against_registry(settings, workspace_uri)


@app.callback()
def history(context: typer.Context) -> None:
    """List every move of the champion, in the order in which they were made."""
    if context.invoked_subcommand is not None:
        return
    settings = Settings()
    workspace_uri = _workspace(settings)
    known = record.load(workspace_uri, settings.registered_model)
    say(f"workspace: {workspace_uri}")
    for _, entry in known.entries:
        say(
            f"{entry.moved_at:%Y-%m-%dT%H:%M:%SZ}  {entry.kind:9}  {entry.model.label} "
            f"(as_of {entry.model.as_of:%Y-%m-%d})  {entry.reason}"
        )
    if known.pending is not None:
        wanted = known.pending.intent.entry
        say(f"begun and not ended: {wanted.kind} of {wanted.model.label} ({wanted.reason})")
    _hold_against_registry(settings, workspace_uri)
    if known.damaged:
        raise DataContractError(
            f"entries of the history cannot be read: {', '.join(known.damaged)}; expected files "
            f"as they were written; put them back, or take note of it with `homefeed history "
            f"repair --apply --reason ...`"
        )


@app.command()
def repair(
    apply: Annotated[bool, typer.Option("--apply", help="Do it; otherwise it is shown.")] = False,
    restore_alias: Annotated[
        bool, typer.Option("--restore-alias", help="The history is right, and not the alias.")
    ] = False,
    reason: Annotated[str, typer.Option(help="Why, in a sentence, for the record.")] = "",
) -> None:
    """Make history and registry agree; without --apply only show what would be done."""
    settings = Settings()
    workspace_uri = storage.to_uri(settings.workspace_location)
    client = tracking.connect(settings.tracking_uri)
    say(f"workspace: {workspace_uri}")
    with record.promotion_lock(workspace_uri):
        state = reconcile.look(client, workspace_uri, settings.registered_model)
        steps = reconcile.propose(state, restore_alias)
        for step in steps or ["nothing: history and registry agree"]:
            say(f"{'' if apply else 'would '}{step}" if steps else step)
        if steps and not apply:
            say("do it: homefeed history repair --apply --reason 'what had happened'")
        if steps and apply:
            reconcile.repair(client, state, datetime.now(UTC), reason, restore_alias)


def _workspace(settings: Settings) -> str:
    workspace_uri = storage.to_uri(settings.workspace_location)
    reconcile.require_workspace(workspace_uri)
    return workspace_uri


def _hold_against_registry(settings: Settings, workspace_uri: str) -> None:
    """End with an error where the registry says otherwise, or cannot be asked."""
    client = tracking.connect(settings.tracking_uri)
    state = reconcile.look(client, workspace_uri, settings.registered_model)
    reconcile.require_agreement(state)
