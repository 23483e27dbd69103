"""`homefeed promote` and `rollback`: a person moves the champion.

Tested in tests/pipelines/registry/test_by_hand.py and tests/pipelines/cli/test_registry.py.
"""

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from pipelines import storage
from pipelines.cli.printing import Commands, say, say_value
from pipelines.contracts.artifacts import Challenger, ResolvedRun
from pipelines.contracts.errors import ConfigurationError
from pipelines.contracts.judgement import Judgement
from pipelines.contracts.run_layout import manifest_uri
from pipelines.cycles.index import refresh_index
from pipelines.registry import by_hand, tracking
from pipelines.settings import Settings

app = Commands()


@app.command()
def promote(
    run: Annotated[str, typer.Option(help="URI or path of the run folder.")],
    reason: Annotated[str, typer.Option(help="Why, for the history and the alert.")],
    force: Annotated[bool, typer.Option("--force", help="In spite of the verdict.")] = False,
) -> None:
    """Make a run's challenger champion in spite of its verdict, and tell people."""
    from pipelines.alerts.compose import compose_forced
    from pipelines.alerts.transports import deliver
    from pipelines.stages.runner import read_artifact

    run_uri = storage.to_uri(run)
    if not force:
        raise ConfigurationError(
            "a promotion by hand overrules the verdict; expected --force; to promote what the "
            "verdict allows, run the cycle's stage promote_challenger"
        )
    cycle = read_artifact(run_uri, "resolve_run", ResolvedRun)
    challenger = read_artifact(run_uri, "train_challenger", Challenger)
    client = tracking.connect(cycle.tracking_uri)
    entry = by_hand.force(client, cycle, challenger, datetime.now(UTC), reason)
    say_value({"move": entry})  # The move is made, whatever else fails.
    previous = entry.previous.label if entry.previous else "no champion"
    refresh_index(cycle.workspace_uri, cycle.registered_model)
    say(f"champion: {entry.model.label} (was {previous})")
    verdict = "the challenger was not judged"
    if storage.exists(manifest_uri(run_uri, "compare_with_champion")):
        judged = read_artifact(run_uri, "compare_with_champion", Judgement).verdict
        verdict = f"{judged.decision}. {judged.reasons[0]}"
    settings = Settings()
    deliver(compose_forced(cycle, entry.model.label, previous, reason, verdict, settings), settings)


@app.command()
def rollback(
    to_version: Annotated[str, typer.Option(help="Version; the one before by default.")] = "",
    from_version: Annotated[
        str, typer.Option(help="Take down only this version; nothing is done if it is down.")
    ] = "",
    reason: Annotated[str, typer.Option(help="For the history.")] = "rolled back by hand",
) -> dict[str, Any]:
    """Point the champion back at an earlier version."""
    settings = Settings()
    client = tracking.connect(settings.tracking_uri)
    now = datetime.now(UTC)
    entry = by_hand.rollback(
        client, settings, to_version or None, now, reason, from_version or None
    )
    workspace_uri = storage.to_uri(settings.workspace_location)
    refresh_index(workspace_uri, settings.registered_model)
    say(f"workspace: {workspace_uri}")
    if entry.moved_at != now:
        say(
            f"taken back already at {entry.moved_at:%Y-%m-%dT%H:%M:%SZ}: {entry.reason}; to go "
            f"back further name a version: homefeed rollback --to-version N"
        )
    say(f"champion: {entry.model.label} (was {entry.previous and entry.previous.label})")
    if entry.moved_at == now:
        say(
            "Airflow's asset homefeed/champion is not updated from here; where other DAGs wait for "
            "it, the DAG homefeed_rollback rolls back and updates it"
        )
    return {"move": entry, "is_made_now": entry.moved_at == now}
