"""Points the champion back at an earlier version, from a form: `homefeed rollback`.

**Trigger** takes three options. `to_version`: what shall serve; empty means the version that served
before. `from_version`: take down only this one, so that a form that is sent twice does nothing the
second time. `reason`: why, for the history and for those who read it in a year.

The version is fetched and must give its example rows their scores before anything is moved. The
recipe that was taken down is held back until somebody releases it (`homefeed anchor release`).

**Skipped** means that nothing was moved, because the champion had been taken back already. The
asset `homefeed/champion` is updated by a run that moved the champion; a rollback on the command
line cannot do that. `docs/runbook.md` says when a rollback is due, and how to know that it worked.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import DAG, Asset, AssetAlias, Param, task
from airflow.sdk.exceptions import AirflowSkipException

from pipelines.orchestration.retries import StageRetryPolicy
from pipelines.settings import Settings

CHAMPION = Asset(name="homefeed/champion", uri="homefeed://champion")
MOVED = AssetAlias("homefeed/champion_if_promoted")
VERSION: dict[str, Any] = {"type": ["null", "string"], "pattern": "^[1-9][0-9]*$"}

PARAMS = {
    "to_version": Param(
        None, **VERSION, title="To version", description="What shall serve. Empty: the one before."
    ),
    "from_version": Param(
        None, **VERSION, title="From version", description="Take down only this one. Empty: any."
    ),
    "reason": Param(
        "",
        type="string",
        minLength=5,
        maxLength=500,
        title="Reason",
        description="Why, in a sentence; the history keeps it.",
    ),
}


@task(task_id="rollback", outlets=[MOVED])
def rollback_task(params: Any = None, dag_run: Any = None, outlet_events: Any = None) -> str:
    """Move the `champion` alias back, and update the asset where it was moved."""
    from pipelines.cycles.index import tell_moved
    from pipelines.registry import moves, tracking

    settings = Settings()
    entry = moves.rollback(
        tracking.connect(settings.tracking_uri),
        settings,
        params["to_version"] or None,
        dag_run.start_date,  # By it, and by no other clock, a retry knows the run's own move.
        params["reason"],
        params["from_version"] or None,
        dag_run.triggering_user_name or "",
    )
    said = f"{entry.model.label} serves, in place of {entry.previous and entry.previous.label}"
    if entry.moved_at != dag_run.start_date:
        raise AirflowSkipException(
            f"nothing was moved: {said} since {entry.moved_at:%Y-%m-%d %H:%M} UTC "
            f"({entry.reason}); to go back further name a version"
        )
    tell_moved(settings.workspace_uri, settings.registered_model)
    extra = {"version": entry.model.version, "reason": entry.reason}
    outlet_events[MOVED].add(CHAMPION, extra=extra)
    return said


with DAG(
    dag_id="homefeed_rollback",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,  # whoever triggers it has no time to look for the switch
    dagrun_timeout=timedelta(hours=2),
    default_args={
        "retries": 2,
        "retry_policy": StageRetryPolicy(),
        "execution_timeout": timedelta(minutes=30),
    },
    params=PARAMS,
    doc_md=__doc__,
    tags=["homefeed"],
) as homefeed_rollback:
    rollback_task()
