"""Who serves: `homefeed serving`, `history`, and the moves that a person makes.

What asks who serves asks the registry too, and ends with an error after what it knows, where the
two disagree. Tested in tests/pipelines/cli/test_champion.py and, of the moves themselves, in
tests/pipelines/registry/test_moves.py.
"""

import getpass
import socket
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Option

from pipelines import storage
from pipelines.alerts.commands import repair_command
from pipelines.cli.printing import Commands, Run, say, say_all, say_value, with_json
from pipelines.contracts.artifacts import Challenger, ModelRef, ResolvedRun
from pipelines.contracts.errors import ConfigurationError, DataContractError, HomefeedError
from pipelines.contracts.judgement import Judgement
from pipelines.contracts.run_layout import manifest_uri
from pipelines.contracts.time import parse_instant
from pipelines.cycles.index import refresh_index, tell_moved
from pipelines.registry import history as record
from pipelines.registry import moves, reconcile, registry, tracking
from pipelines.settings import Settings

app = Commands()
history_app = Commands(
    invoke_without_command=True, help="List every move of the champion, in order; or mend the list."
)


@app.command()
def promote(
    run: Run,
    reason: Annotated[str, Option(help="Why, for the history and the alert.")],
    force: Annotated[bool, Option("--force", help="In spite of the verdict.")] = False,
) -> None:
    """Make a run's challenger champion in spite of its verdict, and tell people."""
    from pipelines.alerts.compose import compose_forced
    from pipelines.alerts.transports import deliver
    from pipelines.stages.runner import read_artifact

    if not force:
        raise ConfigurationError(
            "a promotion by hand overrules the verdict; expected --force; to promote what the "
            "verdict allows, run the cycle's stage promote_challenger"
        )
    cycle = read_artifact(run, "resolve_run", ResolvedRun)
    challenger = read_artifact(run, "train_challenger", Challenger)
    client = tracking.connect(cycle.tracking_uri)
    entry = moves.force(client, cycle, challenger.model, datetime.now(UTC), reason, _me())
    say_value({"move": entry})  # The move is made, whatever else fails.
    before = entry.previous.label if entry.previous else "no champion"
    tell_moved(cycle.workspace_uri, cycle.registered_model, run)
    say(f"champion: {entry.model.label} (was {before})")
    verdict = "the challenger was not judged"
    if storage.exists(manifest_uri(run, "compare_with_champion")):
        judged = read_artifact(run, "compare_with_champion", Judgement).verdict
        verdict = f"{judged.decision}. {judged.reasons[0]}"
    settings = Settings()
    deliver(compose_forced(cycle, entry, verdict, settings), settings)


@app.command()
def rollback(
    to_version: Annotated[str, Option(help="Version; the one before by default.")] = "",
    from_version: Annotated[
        str, Option(help="Take down only this version; nothing is done if it is down.")
    ] = "",
    reason: Annotated[str, Option(help="For the history.")] = "rolled back by hand",
) -> dict[str, Any]:
    """Point the champion back at an earlier version."""
    settings, now = Settings(), datetime.now(UTC)
    client, asked = tracking.connect(settings.tracking_uri), (to_version or None, now, reason)
    entry = moves.rollback(client, settings, *asked, from_version or None, _me())
    workspace_uri, is_made_now = settings.workspace_uri, entry.moved_at == now
    tell_moved(workspace_uri, settings.registered_model)
    say(f"workspace: {workspace_uri}")
    say(f"champion: {entry.model.label} (was {entry.previous and entry.previous.label})")
    say(
        "Airflow's asset homefeed/champion is not updated from here; where other DAGs wait for it, "
        "roll back by the DAG homefeed_rollback"
        if is_made_now
        else f"taken back already at {entry.moved_at:%Y-%m-%dT%H:%M:%SZ}: {entry.reason}; to go "
        f"back further name a version: homefeed rollback --to-version N"
    )
    return {"move": entry, "is_made_now": is_made_now}


@app.command()
def serving(
    at: Annotated[str, Option(help="Instant (ISO 8601, UTC); now by default.")] = "",
    verify: Annotated[
        bool, Option("--verify", help="Compare its files with what was registered.")
    ] = False,
) -> None:
    """Say which model was serving at an instant."""
    settings = Settings()
    instant = parse_instant(at, "--at") if at else None
    where = _place(settings)
    try:
        state = reconcile.look_between_moves(tracking.connect(settings.tracking_uri), *where)
    except HomefeedError:
        _say_serving(record.load(*where), instant, "")
        raise
    try:
        served = _say_serving(state.history, instant, state.serves)
    finally:
        # Also where the history knows of none: "no champion yet" would hide one that serves.
        reconcile.require_agreement(state)
    if not at:
        reconcile.require_newest(state)
    if verify:
        client = tracking.connect(settings.tracking_uri)
        with tempfile.TemporaryDirectory(prefix="homefeed-verify-") as folder:
            registry.download_version(client, served, Path(folder))
        say("its files are those that were registered")


def _say_serving(known: record.History, instant: datetime | None, version: str | None) -> ModelRef:
    """Say and return what served at an instant; now is the newest move, whatever a clock says.

    While the alias, which names `version`, has not followed the newest move, the model before it
    serves still. It may have followed, and nobody has marked that yet.
    """
    begun, at = known.pending, instant or datetime.now(UTC)
    if begun is not None and version == begun.model.version:
        begun = None
    made = replace(known, entries=tuple(entry for entry in known.entries if entry != begun))
    newest = made.in_time.last if instant is None else None
    entry = newest or record.serving_at(made, at)
    say(f"{_label(entry)}, since {entry.moved_at:%Y-%m-%d %H:%M:%S} UTC")
    _say_begun(begun)
    about = {"workspace_uri": known.workspace_uri, "at": at}
    say_value({**about, "serving": entry, "begun": begun})
    return entry.model


@history_app.callback()
@with_json
def history(context: typer.Context) -> None:
    """List every move of the champion, in the order in which they were made."""
    if context.invoked_subcommand is not None:
        return
    settings = Settings()
    where = _place(settings)
    known = record.load(*where)
    for entry in known.moves:
        again = "  (the alias was set again)" if record.was_set_again(known, entry) else ""
        moved_at = f"{entry.moved_at:%Y-%m-%dT%H:%M:%SZ}"
        by = f"  (by {entry.by})" if entry.by else ""
        say(f"{moved_at}  {entry.kind:9}  {_label(entry)}  {entry.reason}{by}{again}")
    _say_begun(known.pending)
    value = {"moves": known.moves, "begun": known.pending, "damaged": known.damaged}
    say_value({"workspace_uri": known.workspace_uri, **value})
    client = tracking.connect(settings.tracking_uri)
    reconcile.require_agreement(reconcile.look_between_moves(client, *where))
    if known.damaged:
        raise DataContractError(
            f"entries of the history cannot be read: {', '.join(known.damaged)}; expected files "
            f"as they were written; put them back, or take note of it with `homefeed history "
            f"repair --apply --reason ...`"
        )


@history_app.command()
def repair(
    apply: Annotated[bool, Option("--apply", help="Do it; otherwise it is shown.")] = False,
    to_version: Annotated[
        str, Option(help="The version that shall serve, where it is not the one that does.")
    ] = "",
    reason: Annotated[str, Option(help="Why, in a sentence, for the record.")] = "",
) -> dict[str, Any]:
    """Make history and registry agree; without --apply only show what would be done."""
    settings, command, asked = Settings(), "", to_version or None
    where, client = _place(settings), tracking.connect(settings.tracking_uri)
    if apply:
        steps = moves.repair(client, where, datetime.now(UTC), reason, asked, _me())
        tell_moved(*where)
    else:
        steps, _ = moves.plan_repair(client, reconcile.look(client, *where), asked)
    say_all(f"{'done: ' if apply else 'would '}{step}" for step in steps)
    if not steps:
        say("nothing: history and registry agree")
    elif not apply:
        command = repair_command(settings, to_version)
        say(f"do it: {command}")
    return {"workspace_uri": where[0], "steps": steps, "is_done": apply, "command": command}


@history_app.command()
def upgrade() -> dict[str, Any]:
    """Go on with the history of an earlier version of homefeed, which cannot go on afterwards."""
    from pipelines.stages.runner import read_artifact
    from training.bundle.files import CONFIG, BundleConfig

    settings = Settings()
    where = _place(settings)
    known = record.upgrade(*where, datetime.now(UTC))
    refresh_index(*where)
    count, unread = {"entries": len(known.entries), "verdicts": 0, "bundles": 0}, list[str]()
    for run_uri in sorted({move.run_uri for move in known.moves if move.run_uri}):
        run_id = record.name_of(run_uri)
        here = storage.join(where[0], "runs", run_id)  # Also where the workspace was moved.
        try:
            read_artifact(here, "compare_with_champion", Judgement)
            count["verdicts"] += 1
            trained = read_artifact(here, "train_challenger", Challenger)
            bundle_uri = storage.join(here, trained.bundle_uri.rpartition(f"/{run_id}/")[2])
            BundleConfig.from_record(storage.read_bytes(storage.join(bundle_uri, CONFIG)))
            count["bundles"] += 1
        except (HomefeedError, OSError, ValueError) as error:
            unread.append(f"{run_id}: {error}")
    say(f"this version reads {', '.join(f'{found} {kind}' for kind, found in count.items())}")
    say_all(f"not read, and left as it is: {each}" for each in unread)
    return {"workspace_uri": where[0], "unread": unread, **count}


def _me() -> str:
    """Return who gives the command: the account and the machine."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def _place(settings: Settings) -> tuple[str, str]:
    """Return the workspace that is there, which is said, and the registered model's name."""
    workspace_uri = settings.workspace_uri
    reconcile.require_workspace(workspace_uri)
    say(f"workspace: {workspace_uri}")
    return workspace_uri, settings.registered_model


def _label(entry: record.Move) -> str:
    """Name the model, its day and the recipe that it was promoted by, if that is on record."""
    recipe = f", recipe {entry.recipe.label}" if entry.recipe else ""
    return f"{entry.model.label} (as_of {entry.model.as_of:%Y-%m-%d}{recipe})"


def _say_begun(begun: record.Move | None) -> None:
    """Name the move that is decided and that the alias has not been seen to follow."""
    if begun is not None:
        say(
            f"decided, and the alias is to follow: {begun.kind} of {begun.model.label} "
            f"({begun.reason}); whoever acts next sets it, or `homefeed history repair`"
        )
