"""What people are told about a run: one function for each reason to tell them something.

An alert is composed after a regression, an inconclusive comparison, a failed data gate and a broken
run; a promotion is no reason for one. Not for cycles that did not run (`pipelines.alerts.missed`),
for how a message looks (`pipelines.alerts.rendering`) or travels (`pipelines.alerts.transports`),
nor for what to run next (`pipelines.alerts.next_step`).
"""

import logging
from datetime import datetime, timedelta

from pipelines import storage
from pipelines.alerts.incidents import cause_of, cycle_of, tell
from pipelines.alerts.links import airflow_link, docs_in, links_of, runbook_links
from pipelines.alerts.lost_races import is_lost_race, is_told_by_another
from pipelines.alerts.next_step import (
    after_failure,
    after_forced,
    is_refusal,
    needs_somebody,
    what_serves,
)
from pipelines.alerts.severity import severity_of
from pipelines.contracts.artifacts import STAGES, ResolvedRun
from pipelines.contracts.errors import HomefeedError
from pipelines.contracts.judged.alert import Alert, AlertKind, AlertReceipt, Cycle, NextStep
from pipelines.contracts.judged.outcome import Outcome
from pipelines.contracts.judgement import Decision, Judgement, Promoted
from pipelines.contracts.run_layout import (
    StageFailure,
    StageRecord,
    failure_uri,
    lost_race_uri,
    manifest_uri,
)
from pipelines.plain_text import one_line
from pipelines.settings import Settings

log = logging.getLogger(__name__)
_CLOCKS = timedelta(seconds=5)
"""How far the clocks of Airflow and of the machine that ran the stage may be apart."""


def alert_on_failure(
    run_uri: str,
    settings: Settings,
    stage: str,
    reason: str = "",
    since: datetime | None = None,
) -> AlertReceipt:
    """Tell people about a run that broke. A second call about the same failure tells nothing.

    Takes what `alert_about_failure` does.

    Raises:
        AlertDeliveryError: a transport failed; the outbox and the other transports have the alert.
    """
    alert = alert_about_failure(run_uri, settings, stage, reason, since)
    if alert is None:
        return AlertReceipt(alert=None, delivered_to=())
    return tell(alert, settings)


def alert_about_failure(
    run_uri: str,
    settings: Settings,
    stage: str,
    reason: str = "",
    since: datetime | None = None,
) -> Alert | None:
    """Return what people are told about a run that broke, or None.

    An attempt that met another process at the same stage breaks nothing, where that one has ended
    well or is still at work: then it tells how it ends. Where it is gone without a word, it was
    killed, and that is what is told.

    Args:
        run_uri: The run folder, with the failed stage's `failure.json` if it could write one.
        settings: Addresses for the links.
        stage: The stage that failed, one of `artifacts.STAGES`.
        reason: Airflow's word for the failure, such as 'timed_out'; where no Airflow ran the cycle,
            what the error said. It is told where the stage wrote nothing.
        since: When the last attempt began, where that is known. What was noted before is about an
            earlier attempt, and this one was ended before it could note anything.
    """
    record = storage.read_model(manifest_uri(run_uri, "resolve_run"), StageRecord)
    run = ResolvedRun.model_validate(record.artifact)
    failures = _failures_of(run_uri, stage)
    if since is not None:
        failures = [each for each in failures if each.occurred_at >= since - _CLOCKS]
    if failures and is_lost_race(failures[0]) and is_told_by_another(run_uri, stage):
        log.info("no alert: %s", failures[0].message)
        return None
    failure = next((each for each in failures if not is_lost_race(each)), None)
    return compose_failure(failure, run, settings, stage, reason, since)


def alert_on_unresolved(
    trigger: str,
    message: str,
    next_step: NextStep,
    settings: Settings,
    cycle: Cycle | None = None,
    at: datetime | None = None,
) -> AlertReceipt:
    """Tell people about a run that broke before it had a folder.

    Takes what `compose_unresolved` does.

    Raises:
        AlertDeliveryError: a transport failed; the outbox and the other transports have the alert.
    """
    return tell(compose_unresolved(trigger, message, next_step, settings, cycle, at), settings)


def compose_unresolved(
    trigger: str,
    message: str,
    next_step: NextStep,
    settings: Settings,
    cycle: Cycle | None = None,
    at: datetime | None = None,
) -> Alert:
    """Return the alert about a run that broke before it had a folder.

    Args:
        trigger: Airflow's run id.
        message: What the exception said, or '' where only the failure itself is known.
        next_step: How the cycle is begun after all.
        settings: Addresses for the links.
        cycle: What was asked for; None where that is not known.
        at: When it broke; None where that is not known. It stands in the words, by which an alert
            that was told before is known: the same run may break again.
    """
    kind = AlertKind.BROKEN_RUN
    when = f" at {at:%Y-%m-%d %H:%M:%S} UTC" if at else ""
    happened = f"resolve_run failed{when}:\n{message}"
    if not message:
        happened = f"resolve_run did not end; the run failed{when}. Its log in Airflow says why."
    return Alert(
        kind=kind,
        run_id=trigger,
        title="Homefeed retrain broke in resolve_run",
        happened=happened,
        certainty="Certain: the task failed, and no later stage began.",
        done="Nothing was built, trained or promoted. The champion is what it was.",
        next_step=next_step,
        links=(
            ("Airflow run", airflow_link(trigger, settings)),
            *runbook_links(kind, settings),
        ),
        severity=severity_of(kind),
        at=at,
        cycle=cycle,
        cause=cause_of("resolve_run", "", message, trigger),
    )


def find_failure(run_uri: str, stage: str = "") -> StageFailure | None:
    """Return the newest failure that a stage of the run has left and that still holds, or None.

    Args:
        run_uri: The run folder.
        stage: The only stage to look at; '' looks at all that have not ended. What is noted beside
            a manifest is about another attempt than the one that ended.
    """
    names = [stage]
    if not stage:
        names = [name for name in STAGES if not storage.exists(manifest_uri(run_uri, name))]
    return next(iter(_failures_of(run_uri, *names)), None)


def _failures_of(run_uri: str, *stages: str) -> list[StageFailure]:
    """Return what stages have left, the newest first."""
    uris = [uri(run_uri, name) for name in stages for uri in (failure_uri, lost_race_uri)]
    repair = "delete it: a failure is noted anew when it recurs"
    found = [storage.read_model(uri, StageFailure, repair) for uri in uris if storage.exists(uri)]
    return sorted(found, key=lambda failure: failure.occurred_at, reverse=True)


def compose_verdict(
    outcome: Outcome, judgement: Judgement, run: ResolvedRun, settings: Settings
) -> Alert | None:
    """Return the alert that a cycle's outcome asks for, or None.

    A challenger that is to be promoted asks for none, unless a loss is certain, if smaller than the
    margin: against the champion, or of its recipe against the fresh anchor.
    """
    # Nothing follows from a comparison whose change the outcome does not tell.
    losses = [
        each
        for each in judgement.certain_losses
        if each is not judgement.comparison or outcome.change is not None
    ]
    if judgement.verdict.promoted is Promoted.CHALLENGER and not losses:
        return None
    is_regression = losses or judgement.verdict.decision is Decision.REJECT
    more = [outcome.most_hurt] if outcome.most_hurt else []
    kind = AlertKind.REGRESSION if is_regression else AlertKind.INCONCLUSIVE
    return Alert(
        kind=kind,
        run_id=run.run_id,
        recipe=run.config.recipe_ref,
        title=f"Homefeed retrain {run.as_of:%Y-%m-%d}: {outcome.title}",
        serves=outcome.serves,
        happened="\n".join((*outcome.reasons, *more, *outcome.warnings)),
        certainty=outcome.number,
        done=outcome.done,
        next_step=outcome.next_step,
        links=(*outcome.links, *runbook_links(kind, settings)),
        severity=severity_of(kind, needs_somebody(run, judgement)),
        cycle=cycle_of(run.to_request()),
    )


def compose_forced(
    run: ResolvedRun, label: str, previous: str, reason: str, verdict: str, settings: Settings
) -> Alert:
    """Return the alert about a challenger that a person promoted in spite of the verdict.

    Args:
        run: The cycle that trained it.
        label: The new champion.
        previous: Who served before, for people.
        reason: What the person gave as the reason.
        verdict: What the gate had decided, or that it had not.
        settings: Addresses for the links.
    """
    kind = AlertKind.FORCED_PROMOTION
    return Alert(
        kind=kind,
        run_id=run.run_id,
        recipe=run.config.recipe_ref,
        title=f"Homefeed retrain {run.as_of:%Y-%m-%d}: {label} was promoted by hand",
        happened=f"A person made {label} champion in spite of the verdict: {one_line(reason)}",
        certainty=f"What the gate had said: {verdict}",
        done=f"{label} serves in place of {previous}. The history has the reason.",
        next_step=after_forced(run, label.rpartition(" v")[2]),
        links=(*links_of(run, settings), *runbook_links(kind, settings)),
        severity=severity_of(kind),
        cycle=cycle_of(run.to_request()),
    )


def compose_failure(
    failure: StageFailure | None,
    run: ResolvedRun,
    settings: Settings,
    stage: str,
    reason: str = "",
    since: datetime | None = None,
) -> Alert:
    """Return the alert about a broken run.

    Args:
        failure: What the stage wrote; None when it was killed before it could.
        run: The cycle.
        settings: Addresses for the links.
        stage: The stage that failed, one of `artifacts.STAGES`.
        reason: Airflow's word for the failure, or what the error said.
        since: When the last attempt began, where that is known.
    """
    happened, certainty = _what_happened(failure, stage, reason, since)
    is_data_gate = failure is not None and is_refusal(failure)
    judged = "event log" if stage == "build_snapshot" else "snapshot"
    broken = f"the data gate refused the {judged}" if is_data_gate else f"{stage} broke"
    kind = AlertKind.DATA_GATE_FAILED if is_data_gate else AlertKind.BROKEN_RUN
    return Alert(
        kind=kind,
        run_id=run.run_id,
        recipe=run.config.recipe_ref,
        title=f"Homefeed retrain {run.as_of:%Y-%m-%d}: {broken}",
        serves=_serves_after(stage, run),
        happened=happened,
        certainty=certainty,
        done=_what_stays(stage, run),
        next_step=after_failure(run, stage, failure),
        links=(
            *links_of(run, settings),
            *docs_in(happened),
            *runbook_links(kind, settings, failure.exit_code if failure else None),
        ),
        severity=severity_of(kind),
        at=failure.occurred_at if failure else None,
        cycle=cycle_of(run.to_request()),
        cause=cause_of(
            stage,
            failure.error_class if failure else "",
            failure.message if failure else reason,
            run.run_id,
        ),
    )


def _what_happened(
    failure: StageFailure | None, stage: str, reason: str, since: datetime | None
) -> tuple[str, str]:
    """Return what a stage that failed has said, and how sure that is."""
    if failure is not None:
        when = f"{failure.occurred_at:%Y-%m-%d %H:%M:%S} UTC"
        happened = f"{failure.error_class} in {stage} at {when}:\n{failure.message}"
        return happened, _may_it_pass(failure)
    began = f" The attempt had begun at {since:%Y-%m-%d %H:%M:%S} UTC." if since else ""
    return (
        f"{stage} ended without saying why ({reason or 'no reason given'}): killed, out of memory, "
        f"or out of time. Its log in Airflow shows the last lines.",
        f"The stage left no reason, so the cause is not known. A stage that was killed may be run "
        f"again: it goes on from what it has kept.{began}",
    )


def _may_it_pass(failure: StageFailure) -> str:
    """Say whether trying again can help."""
    if failure.exit_code == HomefeedError.exit_code:
        return (
            "Whether trying again helps is not known: the error is unforeseen, a defect of this "
            "project or a library's way to report one. What was tried so far did not help."
        )
    if failure.is_retryable:
        return "The cause may pass; what was tried so far did not help."
    return f"Trying again on the same input will fail the same way (exit code {failure.exit_code})."


def _serves_after(stage: str, run: ResolvedRun) -> str:
    """Say which model serves where a stage has failed."""
    if stage in ("promote_challenger", "alert"):  # the one beside the other may have ended, or not
        return "Which model serves is not known here: ask with the command below."
    return what_serves(run)


def _what_stays(stage: str, run: ResolvedRun) -> str:
    if stage == "promote_challenger":
        return (
            "The promotion did not end, so the champion may have moved or not. "
            "Running the stage again completes the promotion or refuses it."
        )
    if stage == "alert":
        return (
            "Only the message about the verdict was not delivered everywhere; it lies in the "
            "outbox folder of the workspace."
        )
    return f"The run stopped there and promoted nothing. {what_serves(run)}"
