"""`homefeed serving` and `history`: which model serves, what served, and whether that is true.

Both ask the registry too, and end with an error after what they know, where the two disagree.
Tested in tests/pipelines/cli/test_history.py.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from pipelines import storage
from pipelines.alerts.commands import repair_command, runnable
from pipelines.cli.printing import AsJson, Commands, say, say_result
from pipelines.contracts.config import RecipeRef
from pipelines.contracts.errors import DataContractError, HomefeedError
from pipelines.contracts.time import parse_instant
from pipelines.registry import history as record
from pipelines.registry import reconcile, tracking
from pipelines.registry.repair import plan
from pipelines.registry.repair import repair as carry_out
from pipelines.settings import Settings

app = Commands(
    invoke_without_command=True, help="List every move of the champion, in order; or mend the list."
)


def serving(
    at: Annotated[str, typer.Option(help="Instant (ISO 8601, UTC); now by default.")] = "",
    as_json: AsJson = False,
) -> None:
    """Say which model was serving at an instant."""
    settings = Settings()
    instant = parse_instant(at, "--at") if at else datetime.now(UTC)
    workspace_uri, name = _workspace(settings), settings.registered_model
    if not as_json:
        say(f"workspace: {workspace_uri}")
    try:
        state = _look(settings, workspace_uri)
    except HomefeedError:
        known = record.load(workspace_uri, name)
        entry, tail = _served(known, name, instant)
        value = _served_value(workspace_uri, instant, entry, known)
        say_result(value, as_json, lambda: (f"{_label(entry, known)}{tail}", *_begun_lines(known)))
        raise
    try:
        known = state.history
        entry, tail = _served(known, name, instant, state.unsettled)
        value = _served_value(workspace_uri, instant, entry, known)
        say_result(value, as_json, lambda: (f"{_label(entry, known)}{tail}",))
    finally:
        # Also where the history knows of none: "no champion yet" would hide one that serves.
        reconcile.require_agreement(state)
    if not at:
        reconcile.require_newest(state)


@app.callback()
def history(context: typer.Context, as_json: AsJson = False) -> None:
    """List every move of the champion, in the order in which they were made."""
    if context.invoked_subcommand is not None:
        return
    settings = Settings()
    workspace_uri = _workspace(settings)
    known = record.load(workspace_uri, settings.registered_model)
    value = {
        "workspace_uri": workspace_uri,
        "moves": [entry for _, entry in known.entries],
        "begun": known.pending.intent.entry if known.pending else None,
        "damaged": known.damaged,
    }
    say_result(value, as_json, lambda: _history_lines(workspace_uri, known))
    reconcile.require_agreement(_look(settings, workspace_uri))
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
    to_version: Annotated[
        str, typer.Option(help="A version that shall serve, where neither of them will do.")
    ] = "",
    reason: Annotated[str, typer.Option(help="Why, in a sentence, for the record.")] = "",
) -> dict[str, Any]:
    """Make history and registry agree; without --apply only show what would be done."""
    settings = Settings()
    workspace_uri = _workspace(settings)
    client = tracking.connect(settings.tracking_uri)
    say(f"workspace: {workspace_uri}")
    with record.promotion_lock(workspace_uri):
        state = reconcile.look(client, workspace_uri, settings.registered_model)
        wanted = plan(client, state, restore_alias, to_version or None)
        if apply and wanted.steps:
            carry_out(client, state, wanted, datetime.now(UTC), reason)
    for step in wanted.steps:
        say(f"{'done: ' if apply else 'would '}{step}")
    if not wanted.steps:
        say("nothing: history and registry agree")
    command = "" if apply else runnable(repair_command(settings, restore_alias, to_version))
    if wanted.steps and command:
        say(f"do it: {command}")
    return {
        "workspace_uri": workspace_uri,
        "steps": wanted.steps,
        "is_done": apply,
        "command": command if wanted.steps else "",
    }


def _workspace(settings: Settings) -> str:
    workspace_uri = storage.to_uri(settings.workspace_location)
    reconcile.require_workspace(workspace_uri)
    return workspace_uri


def _look(settings: Settings, workspace_uri: str) -> reconcile.State:
    """Return what registry and history say; end with an error where the registry is silent."""
    client = tracking.connect(settings.tracking_uri)
    return reconcile.look_between_moves(client, workspace_uri, settings.registered_model)


def _served(
    known: record.History, name: str, instant: datetime, unsettled: record.Move | None = None
) -> tuple[record.HistoryEntry, str]:
    """Return what served at an instant, and since when, as the end of a line about it.

    Args:
        known: The history.
        name: The registered model.
        instant: The instant.
        unsettled: A move that the alias has made and that has no outcome in the history yet.
    """
    if unsettled is not None and unsettled.intent.entry.moved_at <= instant:
        entry, tail = unsettled.intent.entry, "; its outcome is not on record yet"
        return entry, f", since its move of {entry.moved_at:%Y-%m-%d %H:%M:%S} UTC{tail}"
    entry = record.serving_at(known, name, instant)
    return entry, f", since {entry.moved_at:%Y-%m-%d %H:%M:%S} UTC"


def _served_value(
    workspace_uri: str, instant: datetime, entry: record.HistoryEntry, known: record.History
) -> dict[str, Any]:
    """Return what served at an instant, for programs."""
    return {
        "workspace_uri": workspace_uri,
        "at": instant,
        "serving": entry,
        "recipe": _recipe_of(entry, known),
        "begun": known.pending.intent.entry if known.pending else None,
    }


def _history_lines(workspace_uri: str, known: record.History) -> Iterator[str]:
    yield f"workspace: {workspace_uri}"
    for _, entry in known.entries:
        moved_at, label = f"{entry.moved_at:%Y-%m-%dT%H:%M:%SZ}", _label(entry, known)
        yield f"{moved_at}  {entry.kind:9}  {label}  {entry.reason}"
    yield from _begun_lines(known)


def _label(entry: record.HistoryEntry, known: record.History) -> str:
    """Name the model, its day and the recipe that it was promoted by, if that is on record.

    A rollback records no recipe: the one of the model's promotion holds.
    """
    found = _recipe_of(entry, known)
    recipe = f", recipe {found.label}" if found is not None else ""
    return f"{entry.model.label} (as_of {entry.model.as_of:%Y-%m-%d}{recipe})"


def _recipe_of(entry: record.HistoryEntry, known: record.History) -> RecipeRef | None:
    """Return the recipe that the model of a move was promoted by, or None."""
    made_by = [each.recipe for _, each in known.entries if each.model == entry.model]
    return next((found for found in made_by if found is not None), None)


def _begun_lines(known: record.History) -> Iterator[str]:
    """Name the move that was begun and of which nobody has recorded what became of it."""
    if known.pending is not None:
        wanted = known.pending.intent.entry
        yield f"begun and not ended: {wanted.kind} of {wanted.model.label} ({wanted.reason})"
