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
from pipelines.registry.by_hand import Plan, decided, plan
from pipelines.registry.by_hand import repair as carry_out
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
    instant = parse_instant(at, "--at") if at else None
    workspace_uri, name = _workspace(settings), settings.registered_model
    if not as_json:
        say(f"workspace: {workspace_uri}")
    try:
        state = _look(settings, workspace_uri)
    except HomefeedError:
        known = record.load(workspace_uri, name)
        _say_serving(known, settings, instant, as_json)
        raise
    try:
        _say_serving(state.history, settings, instant, as_json, state)
    finally:
        # Also where the history knows of none: "no champion yet" would hide one that serves.
        reconcile.require_agreement(state)
    if not at:
        reconcile.require_newest(state)


def _say_serving(
    known: record.History,
    settings: Settings,
    instant: datetime | None,
    as_json: bool,
    state: reconcile.State | None = None,
) -> None:
    """Say what served at an instant; now is the newest move, whatever a clock says.

    While the alias has not followed the newest move, the model before it serves still.
    """
    begun = known.pending
    if state is not None and begun is not None and state.serves == begun.model.version:
        begun = None  # The alias has followed, and nobody has marked that yet.
    moves = [entry for _, entry in known.entries if entry != begun]
    if instant is not None or not moves:
        entry = record.serving_at(known, settings.registered_model, instant or datetime.now(UTC))
    else:
        entry = moves[-1]
    value = {
        "workspace_uri": storage.to_uri(settings.workspace_location),
        "at": instant or datetime.now(UTC),
        "serving": entry,
        "recipe": _recipe_of(entry, known),
        "begun": begun,
    }
    since = f"{_label(entry, known)}, since {entry.moved_at:%Y-%m-%d %H:%M:%S} UTC"
    say_result(value, as_json, lambda: (since, *_begun_lines(begun)))


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
        "begun": known.pending,
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

    def decide() -> Plan:
        state = reconcile.look(client, workspace_uri, settings.registered_model)
        wanted = plan(client, state, restore_alias, to_version or None)
        if apply and wanted.steps:
            carry_out(client, state, wanted, datetime.now(UTC), reason)
        return wanted

    wanted = decided(workspace_uri, decide)
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


def _history_lines(workspace_uri: str, known: record.History) -> Iterator[str]:
    yield f"workspace: {workspace_uri}"
    for placed in known.moves:
        entry, number = placed.entry.event, placed.entry.number
        assert isinstance(entry, record.HistoryEntry)
        moved_at, label = f"{entry.moved_at:%Y-%m-%dT%H:%M:%SZ}", _label(entry, known)
        again = ""
        if record.was_set_again(workspace_uri, entry.model.name, number):
            again = "  (the alias was set again: a write was lost, or a hand had moved it back)"
        yield f"{moved_at}  {entry.kind:9}  {label}  {entry.reason}{again}"
    yield from _begun_lines(known.pending)


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


def _begun_lines(begun: record.HistoryEntry | None) -> Iterator[str]:
    """Name the move that is decided and that the alias has not been seen to follow."""
    if begun is not None:
        yield (
            f"decided, and the alias is to follow: {begun.kind} of {begun.model.label} "
            f"({begun.reason}); whoever acts next sets it, or `homefeed history repair`"
        )
