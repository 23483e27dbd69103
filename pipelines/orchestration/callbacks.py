"""What Airflow is told, or calls, when something has happened: a move, a broken run, its end.

Tested also in a real Airflow: tests/pipelines/local/test_real_airflow.py and test_real_faults.py.
"""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from airflow.sdk import Asset
from airflow.sdk.exceptions import AirflowSkipException

from pipelines.contracts.alert import AlertReceipt, Unresolved
from pipelines.contracts.judgement import Promotion
from pipelines.orchestration.resolving import unresolved_of
from pipelines.settings import Settings

log = logging.getLogger(__name__)


def announce_promotion(run_uri: str, events: Any, champion: Asset) -> None:
    """Update the asset `champion` if `promote_challenger` promoted; skip the task if not.

    Args:
        run_uri: the run folder, in which `promote_challenger` has ended.
        events: those of the task's outlet, an alias; without an event it updates no asset.
        champion: the asset that others schedule on.

    Raises:
        AirflowSkipException: nothing was promoted; it says why.
    """
    from pipelines.stages.runner import read_artifact

    promotion = read_artifact(run_uri, "promote_challenger", Promotion)
    if not promotion.is_promoted or promotion.champion_after is None:
        raise AirflowSkipException(f"nothing was promoted: {promotion.reason}")
    log.info("%s was promoted: %s", promotion.champion_after.label, promotion.reason)
    extra = {"version": promotion.champion_after.version, "reason": promotion.reason}
    events.add(champion, extra=extra)


def roll_back(params: Mapping[str, Any], dag_run: Any, events: Any, champion: Asset) -> str:
    """Roll back as a form asks, and return what serves now, in a sentence.

    Args:
        params: `to_version`, `from_version` and `reason`.
        dag_run: The run; a move that was made since it began is its own, also after a retry.
        events: The outlet's events.
        champion: The asset that others schedule on.

    Raises:
        AirflowSkipException: the champion was taken back before this run began.
        HomefeedError: as `moves.rollback` does.
    """
    from pipelines import storage
    from pipelines.cycles.index import refresh_index
    from pipelines.registry import moves, tracking

    settings = Settings()
    entry = moves.rollback(
        tracking.connect(settings.tracking_uri),
        settings,
        params["to_version"] or None,
        datetime.now(UTC),
        params["reason"],
        params["from_version"] or None,
    )
    said = f"{entry.model.label} serves, in place of {entry.previous and entry.previous.label}"
    if entry.moved_at < dag_run.start_date:
        raise AirflowSkipException(
            f"nothing was moved: {said} since {entry.moved_at:%Y-%m-%d %H:%M} UTC "
            f"({entry.reason}); to go back further name a version"
        )
    refresh_index(storage.to_uri(settings.workspace_location), settings.registered_model)
    events.add(champion, extra={"version": entry.model.version, "reason": entry.reason})
    log.info("%s: %s", said, entry.reason)
    return said


def require_alert(run_uri: str) -> None:
    """Skip the task `alert`, which has ended in the run folder, where nobody had to be told.

    Raises:
        AirflowSkipException: no message was sent.
    """
    from pipelines.stages.runner import read_artifact

    if read_artifact(run_uri, "alert", AlertReceipt).alert is None:
        raise AirflowSkipException("nobody had to be told: a promotion is no reason to")


def alert_broken_run(context: Mapping[str, Any]) -> None:
    """Alert once about a run that failed; Airflow calls this in its DAG processor.

    Airflow sees the whole run, so this also hears of a killed worker and of a run that timed out.
    """
    from pipelines.alerts import compose
    from pipelines.alerts.incidents import tell
    from pipelines.stages.alert import tell_failure

    ti, dag_run, settings = context.get("ti"), context.get("dag_run"), Settings()
    ended_at, reason = getattr(dag_run, "end_date", None), str(context.get("reason", ""))
    if ti and (resolved := ti.xcom_pull(task_ids="resolve_run")):
        # With its instant: the same run that ends so again has failed again.
        began = getattr(ti, "start_date", None)
        ended = compose.Ended(ti.task_id, reason, began, ended_at)
        tell_failure(resolved["run_uri"], settings, ended)
        return
    left, began = unresolved_of(ti) if ti else None, getattr(dag_run, "start_date", None)
    # Whoever clears a run begins it anew. Where the task never starts again, Airflow still has what
    # an earlier attempt left.
    if left is None or (began and left.at < began):
        left = Unresolved(message="", next_step=compose.after_lost_start(settings), at=ended_at)
    tell(compose.compose_unresolved(context["run_id"], left, settings), settings)


def tell_ended_run(context: Mapping[str, Any]) -> None:
    """Tell people that a run has ended well after runs that broke; Airflow calls this for each."""
    from pipelines.alerts.incidents import tell_recovered

    ti = context.get("ti")
    # A run that was skipped has ended well, too, and says nothing.
    if ti and (resolved := ti.xcom_pull(task_ids="resolve_run")):
        tell_recovered(resolved["run_uri"], Settings())
