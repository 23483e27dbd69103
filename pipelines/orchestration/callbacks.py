"""What Airflow calls or tells when something has happened: a broken run, a new champion.

Tested also in a real Airflow: tests/pipelines/local/test_real_airflow.py and test_real_faults.py.
"""

import logging
from collections.abc import Mapping
from typing import Any

from airflow.sdk import Asset, AssetAlias
from airflow.sdk.exceptions import AirflowSkipException

from pipelines.orchestration.resolving import unresolved_of
from pipelines.settings import Settings

log = logging.getLogger(__name__)


def announce_promotion(run_uri: str, events: Any, alias: AssetAlias, champion: Asset) -> None:
    """Update the asset `champion` if `promote_challenger` promoted; skip the task if not.

    A green task means that something was promoted. What was decided is published either way.

    Args:
        run_uri: the run folder, in which `promote_challenger` has ended.
        events: the task's outlet_events.
        alias: the task's outlet; an alias without an event updates no asset.
        champion: the asset that others schedule on.

    Raises:
        AirflowSkipException: nothing was promoted; it says why.
    """
    from pipelines.contracts.judgement import Promotion
    from pipelines.stages.runner import read_artifact

    promotion = read_artifact(run_uri, "promote_challenger", Promotion)
    if not promotion.is_promoted or promotion.champion_after is None:
        raise AirflowSkipException(f"nothing was promoted: {promotion.reason}")
    log.info("%s was promoted: %s", promotion.champion_after.label, promotion.reason)
    extra = {"version": promotion.champion_after.version, "reason": promotion.reason}
    events[alias].add(champion, extra=extra)


def require_alert(run_uri: str) -> None:
    """Skip the task `alert` where there was nothing to tell people.

    Args:
        run_uri: the run folder, in which `alert` has ended.

    Raises:
        AirflowSkipException: no message was sent.
    """
    from pipelines.contracts.alert import AlertReceipt
    from pipelines.stages.runner import read_artifact

    if read_artifact(run_uri, "alert", AlertReceipt).alert is None:
        raise AirflowSkipException("nobody had to be told: a promotion is no reason to")


def alert_broken_run(context: Mapping[str, Any]) -> None:
    """Alert once about a run that failed; Airflow calls this in its DAG processor.

    Airflow sees the whole run, so this also hears of a killed worker and of a run that timed out.
    """
    from pipelines.alerts.compose import (
        Ended,
        after_lost_start,
        compose_unresolved,
        is_told_by_another,
    )
    from pipelines.alerts.incidents import tell
    from pipelines.contracts.alert import Unresolved
    from pipelines.stages.breaking import tell_failure

    ti, dag_run = context.get("ti"), context.get("dag_run")
    settings, reason = Settings(), str(context.get("reason", ""))
    ended_at = getattr(dag_run, "end_date", None)
    resolved = ti.xcom_pull(task_ids="resolve_run") if ti else None
    if ti and resolved:
        # With its instant: the same run that ends so again has failed again.
        ended = Ended(ti.task_id, reason, getattr(ti, "start_date", None), ended_at)
        tell_failure(resolved["run_uri"], settings, ended)
        return
    left = unresolved_of(ti) if ti else None
    began = getattr(dag_run, "start_date", None)
    if left and began and left.at < began:
        # Whoever clears a run begins it anew. Where the task never starts again, Airflow still has
        # what an earlier attempt left.
        left = None
    if left and left.lost_in and is_told_by_another(left.lost_in, "resolve_run"):
        return
    left = left or Unresolved(message="", next_step=after_lost_start(settings), at=ended_at)
    tell(compose_unresolved(context["run_id"], left, settings), settings)


def tell_ended_run(context: Mapping[str, Any]) -> None:
    """Tell people that a run has ended well after runs that broke; Airflow calls this for each."""
    from pipelines.alerts.incidents import tell_recovered

    ti = context.get("ti")
    resolved = ti.xcom_pull(task_ids="resolve_run") if ti else None
    if resolved:  # a run that was skipped has ended well, too, and says nothing
        tell_recovered(resolved["run_uri"], Settings())
