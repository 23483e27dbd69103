"""What people are told: one function for each reason to tell them something.

A promotion is no reason. Each function takes what happened and the settings, for the addresses of
its links. Not for how a message looks (`pipelines.alerts.rendering`) or travels
(`pipelines.alerts.transports`), nor for what was told before and is mended by now
(`pipelines.alerts.incidents`).
"""

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pipelines import storage
from pipelines.alerts.commands import (
    Offered,
    accept_shift_command,
    ask_who_serves,
    cycle_command,
    force_command,
    new_cycle_command,
    rebuild_command,
    rollback_command,
    stage_command,
    step,
)
from pipelines.alerts.links import Links, airflow_link, links_of, runbook_link
from pipelines.alerts.outcomes import APPROVAL_TASK, needs_somebody, what_serves
from pipelines.contracts.alert import (
    Alert,
    AlertKind,
    AlertSeverity,
    Cause,
    Cycle,
    NextStep,
    Unresolved,
)
from pipelines.contracts.artifacts import STAGES, ResolvedRun, RunRequest
from pipelines.contracts.errors import (
    BUNDLE_MISSING,
    DataContractError,
    DataGateFailedError,
    HomefeedError,
    PromotionRefusedError,
    SnapshotDamagedError,
)
from pipelines.contracts.judgement import Approval, Decision, Judgement, Outcome, Promoted, Question
from pipelines.contracts.run_layout import (
    StageFailure,
    StageRecord,
    failure_uri,
    manifest_uri,
)
from pipelines.contracts.stage_table import TABLE
from pipelines.plain_text import one_line
from pipelines.settings import Settings

log = logging.getLogger(__name__)
_CLOCKS = timedelta(seconds=5)
"""How far the clocks of Airflow and of the machine that ran the stage may be apart."""
_MINUTE, _SECOND = "%Y-%m-%d %H:%M UTC", "%Y-%m-%d %H:%M:%S UTC"


def cycle_of(request: RunRequest) -> Cycle:
    """Return the cycle that a request asks for."""
    return Cycle(day=request.day.date(), recipe=request.recipe)


def make_alert(
    kind: AlertKind,
    settings: Settings,
    links: Links,
    *,
    run: ResolvedRun | None = None,
    title: str,
    is_urgent: bool = False,
    **said: Any,
) -> Alert:
    """Return an alert with its severity and its sections of the runbook.

    Args:
        kind: Why somebody is told.
        settings: The runbook's address.
        links: Where to look, before the runbook.
        run: The cycle; without one, `said` has the run's id.
        title: One line; the day of the run is put before it.
        is_urgent: Whether a person has to decide though the kind as such needs nobody.
        said: The other fields.
    """
    is_raised = is_urgent and kind.severity is AlertSeverity.INFO
    if run is not None:
        said |= {"run_id": run.run_id, "recipe": run.config.recipe_ref}
        said["cycle"] = cycle_of(run.to_request())
        title = f"{run.as_of:%Y-%m-%d}: {title}"
    return Alert(
        kind=kind,
        severity=AlertSeverity.WARNING if is_raised else kind.severity,
        title=f"Homefeed retrain {title}",
        links=(*links, ("Runbook", runbook_link(kind, settings))),
        **said,
    )


def compose_verdict(
    outcome: Outcome, judgement: Judgement, run: ResolvedRun, settings: Settings
) -> Alert | None:
    """Return the alert that a cycle's outcome asks for, or None.

    A challenger that is to be promoted asks for none, unless a loss is certain, if smaller than the
    margin: against the champion, or of its recipe against the fresh anchor.
    """
    # Nothing follows from a comparison whose change the outcome does not tell.
    is_void = outcome.change is None
    losses = [e for e in judgement.certain_losses if not is_void or e is not judgement.comparison]
    if judgement.verdict.promoted is Promoted.CHALLENGER and not losses:
        return None
    is_regression = losses or judgement.verdict.decision is Decision.REJECT
    return make_alert(
        AlertKind.REGRESSION if is_regression else AlertKind.INCONCLUSIVE,
        settings,
        outcome.links,
        run=run,
        title=outcome.title,
        is_urgent=needs_somebody(run, judgement),
        **_as_told(outcome),
        about=(judgement.ruling_digest,),
        happened="\n".join(filter(None, (*outcome.reasons, outcome.most_hurt, *outcome.warnings))),
    )


def _as_told(outcome: Outcome) -> dict[str, Any]:
    fields = {name: getattr(outcome, name) for name in ("serves", "done", "next_step")}
    return {"certainty": outcome.number, **fields}


def compose_wanted(
    run: ResolvedRun, outcome: Outcome, question: Question, settings: Settings
) -> Alert:
    """Return the alert that asks a person to approve a promotion; each time it is put is told."""
    page = f"{airflow_link(run.trigger, settings)}/tasks/{APPROVAL_TASK}/required_actions"
    happened = [outcome.title, *outcome.reasons, *outcome.warnings]
    if (times := question.num_times) > 1:
        happened.insert(0, f"Asked {times} times by now: whoever has answered answers again.")
    return make_alert(
        AlertKind.APPROVAL_WANTED,
        settings,
        (("Approve or reject", page), *outcome.links),
        run=run,
        title=f"a promotion waits to be approved until {question.until:{_MINUTE}}",
        **_as_told(outcome),
        about=(question.ruling_digest, question.until.isoformat(), str(times)),
        happened="\n".join(happened),
    )


def compose_not_approved(
    run: ResolvedRun, outcome: Outcome, approval: Approval, settings: Settings
) -> Alert:
    """Return the alert about a promotion that a person rejected, or that nobody answered for."""
    stays = what_serves(run)
    return make_alert(
        AlertKind.NOT_APPROVED,
        settings,
        links_of(run, settings),
        run=run,
        title=f"{one_line(approval.model)} was not approved",
        is_urgent=not approval.by,
        about=(approval.ruling_digest, approval.at.isoformat()),
        serves=stays,
        happened=one_line(approval.sentence),
        certainty=outcome.number,
        done=f"Nothing was promoted. {stays}",
        next_step=step(
            "The question is closed. The next cycle asks about its own model.",
            ask_who_serves(run),
            ("Promote the challenger all the same:", force_command(run)),
        ),
        at=approval.at,
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
    back = rollback_command(run, away=label.rpartition(" v")[2])
    return make_alert(
        AlertKind.FORCED_PROMOTION,
        settings,
        links_of(run, settings),
        run=run,
        title=f"{label} was promoted by hand",
        about=(label, previous, reason),
        happened=f"A person made {label} champion in spite of the verdict: {one_line(reason)}",
        certainty=f"What the gate had said: {verdict}",
        done=f"{label} serves in place of {previous}. The history has the reason.",
        next_step=step(
            "Watch what users do now. A rollback takes the promotion back.",
            ask_who_serves(run),
            ("Go back to the version before:", back),
        ),
    )


@dataclass(frozen=True)
class Ended:
    """How a task ended that broke a run, as whoever saw it tells."""

    stage: str  # One of `artifacts.STAGES`, or another task of Airflow's.
    reason: str = ""  # Airflow's word, or what the error said; told where the stage wrote nothing.
    since: datetime | None = None  # When the attempt began: what is older is about another one.
    at: datetime | None = None  # When the run was seen to have ended.


def alert_about_failure(run_uri: str, settings: Settings, ended: Ended) -> Alert:
    """Return what people are told about a run that broke.

    Args:
        run_uri: The run folder, with the failed stage's `failure.json` if it could write one.
        settings: Addresses for the links.
        ended: How the stage ended.
    """
    record = storage.read_model(manifest_uri(run_uri, "resolve_run"), StageRecord)
    run = ResolvedRun.model_validate(record.artifact)
    failures = _failures_of(run_uri, ended.stage)
    if ended.since is not None:
        failures = [each for each in failures if each.occurred_at >= ended.since - _CLOCKS]
    return compose_failure(next(iter(failures), None), run, settings, ended)


def find_failure(run_uri: str) -> StageFailure | None:
    """Return the newest failure that a stage of the run has left and that still holds, or None.

    What is noted beside a manifest is about another attempt than the one that ended.
    """
    unended = [name for name in STAGES if not storage.exists(manifest_uri(run_uri, name))]
    return next(iter(_failures_of(run_uri, *unended)), None)


def _failures_of(run_uri: str, *stages: str) -> list[StageFailure]:
    """Return what stages have left, the newest first."""
    uris = [failure_uri(run_uri, name) for name in stages]
    repair = "delete it: a failure is noted anew when it recurs"
    found = [storage.read_model(uri, StageFailure, repair) for uri in uris if storage.exists(uri)]
    return sorted(found, key=lambda failure: failure.occurred_at, reverse=True)


def compose_failure(
    failure: StageFailure | None, run: ResolvedRun, settings: Settings, ended: Ended
) -> Alert:
    """Return the alert about a broken run; `failure` is None for a stage that was killed."""
    stage, serves, links = ended.stage, what_serves(run), links_of(run, settings)
    kind, title = AlertKind.BROKEN_RUN, f"{stage} broke"
    cause, instants = Cause(stage=stage, error_class=""), (ended.since, ended.at)
    when = f" at {ended.at:{_SECOND}}" if ended.at else ""
    happened = (
        f"{stage} ended without saying why ({ended.reason or 'no reason given'}{when}): killed, "
        f"out of memory, or out of time."
    )
    certainty = "The cause is not known. A stage that was killed may be run again: it goes on."
    done = f"The run stopped there and promoted nothing. {serves}"
    if failure is not None:
        name, instants = failure.error_class, (failure.occurred_at, None)
        told = {"raised_by": failure.raised_by, "about": failure.about}
        cause = Cause(stage=stage, error_class=name, **told)
        happened = f"{name} in {stage} at {failure.occurred_at:{_SECOND}}:\n{failure.message}"
        certainty = f"Trying again will fail the same way (exit code {failure.exit_code})."
        if failure.is_retryable or failure.exit_code == HomefeedError.exit_code:
            certainty = "The cause may pass; what was tried so far did not help."
        judged = {"build_snapshot": "event log", "check_snapshot": "snapshot"}.get(failure.stage)
        if judged and name in (DataGateFailedError.__name__, SnapshotDamagedError.__name__):
            kind, title = AlertKind.DATA_GATE_FAILED, f"the data gate refused the {judged}"
        if failure.docs_uri:
            links = (*links, ("Data Docs", failure.docs_uri))
    if stage in _BESIDE:  # Of these two the one beside the other may have ended, or not.
        serves = "Which model serves is not known here: ask with the command below."
        done = _BESIDE[stage]
    return make_alert(
        kind,
        settings,
        links,
        run=run,
        title=title,
        about=(stage, cause.error_class, *(each.isoformat() for each in instants if each)),
        serves=serves,
        happened=happened,
        certainty=certainty,
        done=done,
        next_step=after_failure(run, stage, failure),
        at=failure.occurred_at if failure else None,
        cause=cause,
    )


_BESIDE = {
    "promote_challenger": "The champion may have moved or not; the stage, run again, completes "
    "or refuses the move.",
    "alert": "Only the message about the verdict was not delivered everywhere; the outbox has it.",
}
"""What is told to be done where one of the last stages has failed."""


def after_failure(run: ResolvedRun, stage: str, failure: StageFailure | None) -> NextStep:
    """Return how a broken run is mended.

    Args:
        run: The cycle.
        stage: The stage that failed, one of `artifacts.STAGES`, or another task of Airflow's.
        failure: What the stage wrote; None when it was killed before it could.
    """
    if stage not in STAGES:  # The question to people is Airflow's own.
        return step(
            f"Mend what its log names, then clear {stage} in Airflow, with what is after it; or "
            f"begin another cycle, where the log gives the command of one."
        )
    again: tuple[Offered, ...] = (
        ("Run the failed stage again:", stage_command(stage, run.run_uri)),
        (
            "Run what is left of the cycle (in Airflow, clear the failed task instead):",
            cycle_command(run.to_request(), run),
        ),
    )
    if stage in _BESIDE:
        again += (ask_who_serves(run),)
    if failure is None:
        return step("Look at the end of the stage's log, then run the stage again.", *again)
    if failure.error_class == SnapshotDamagedError.__name__:
        rebuild = ("Build the snapshot again:", rebuild_command(run.run_uri))
        return step(
            "Build the snapshot again, which gives the same files, then run the failed stage.",
            *(rebuild, *again),
        )
    told, offered = "Mend what the message names, then run the stage again.", again
    is_of_the_data = failure.exit_code == DataContractError.exit_code and TABLE[stage].is_judging
    is_fixed = is_of_the_data and BUNDLE_MISSING not in failure.about
    if is_fixed or failure.exit_code == PromotionRefusedError.exit_code:
        told = "This run's inputs are fixed: mend what the message names, then start a new cycle."
        offered = (("Start a new cycle on the same day:", new_cycle_command(run)),)
    if failure.acceptable:  # The data gate has refused what a person may accept.
        told = f"{told} If the data are right, accept them and run the stage again."
        accept = tuple(
            (f"If the data are right, accept {name}:", accept_shift_command(run.run_uri, name))
            for name in failure.acceptable
        )
        offered = (*(offered if is_fixed else ()), *accept, *again)
    return step(told, *offered)


def after_lost_start(settings: Settings) -> NextStep:
    """Return what helps where `resolve_run` was killed and left nothing."""
    told = "Look at the end of resolve_run's log, then clear the task in Airflow."
    return step(told, ask_who_serves(settings))


def after_unresolved(request: RunRequest, settings: Settings) -> NextStep:
    """Return how a cycle is begun that broke in `resolve_run`."""
    return step(
        "Mend what the message names, begin the cycle, then clear the failed task in Airflow. If "
        "the day or the recipe was not meant, trigger another run instead.",
        ("Begin the cycle:", cycle_command(request, settings, "resolve")),
    )


def compose_unresolved(trigger: str, broken: Unresolved, settings: Settings) -> Alert:
    """Return the alert about a run that broke before it had a folder.

    Args:
        trigger: Airflow's run id.
        broken: What `resolve_run` has left of it.
        settings: Addresses for the links.
    """
    when = f" at {broken.at:{_SECOND}}" if broken.at else ""
    happened = f"resolve_run failed{when}:\n{broken.message}"
    if not broken.message:
        happened = f"resolve_run did not end; the run failed{when}. Its log in Airflow says why."
    at = (broken.at.isoformat(),) if broken.at else ()
    return make_alert(
        AlertKind.BROKEN_RUN,
        settings,
        (("Airflow run", airflow_link(trigger, settings)),),
        run_id=trigger,
        about=(broken.cause.stage, broken.cause.error_class, *at),
        title="broke in resolve_run",
        happened=happened,
        certainty="Certain: the task failed, and no later stage began.",
        done="Nothing was built, trained or promoted. The champion is what it was.",
        next_step=broken.next_step,
        at=broken.at,
        cycle=broken.cycle,
        cause=broken.cause,
    )


@dataclass(frozen=True)
class MissedCycles:
    """Cycles that did not run, as a scheduled run found them when it started."""

    skipped: tuple[datetime, ...]  # Due instants of the cycles, oldest first, at least one.
    due: datetime  # Due instant of the run that found them.
    started_at: datetime  # When that run started.
    is_too_late: bool  # That run is skipped too, because it started too late.
    max_lateness: timedelta  # How long after its due instant a cycle may start.
    next_due: datetime  # Of the cycle that follows, or of the newest one that has come since.


def compose_missed(missed: MissedCycles, request: RunRequest, settings: Settings) -> Alert:
    """Return the alert about cycles that were skipped; `request` is of the run that found them."""
    skipped, newest = missed.skipped, missed.skipped[-1]
    asked, ask = request.model_copy(update={"as_of": newest}), ask_who_serves(settings)
    # A newer cycle than the skipped ones runs now, or has come and is next.
    is_newer_under_way = not missed.is_too_late or missed.next_due <= missed.started_at
    dates = f"{newest:{_MINUTE}}"
    if len(skipped) > 1:
        dates = f"{len(skipped)} due dates, from {skipped[0]:{_MINUTE}} to {dates}"
    done = f"The cycle of {missed.due:{_MINUTE}} is running, as of its own date."
    if missed.is_too_late:
        limit = missed.max_lateness / timedelta(days=1)
        done = f"That run was skipped too: a cycle may start up to {limit:.1f} days late."
    next_step = step("Nothing has to be run: a newer cycle runs now or is next.", ask)
    if not is_newer_under_way:
        next_step = step(
            "If the champion should not wait for the next cycle, run the newest skipped one now, "
            "or clear its run in Airflow.",
            ("Run the newest skipped cycle now:", cycle_command(asked, settings)),
            ask,
        )
    return make_alert(
        AlertKind.MISSED_CYCLE,
        settings,
        (("Airflow run", airflow_link(request.trigger, settings)),),
        is_urgent=not is_newer_under_way,
        run_id=request.trigger,
        about=tuple(each.isoformat() for each in skipped),
        title=f"{newest:%Y-%m-%d}: cycles were skipped ({len(skipped)})",
        happened=f"No cycle ran for {dates}.\nThis was seen when Airflow started the run of "
        f"{missed.due:{_MINUTE}} at {missed.started_at:{_MINUTE}}.",
        certainty="Certain. The cause is not on record: Airflow was down, the DAG was paused, or "
        "an earlier run took too long.",
        done=f"{done} Skipped cycles are not replayed; the next one is that of "
        f"{missed.next_due:{_MINUTE}}.",
        next_step=next_step,
        at=missed.started_at,
        cycle=cycle_of(asked),
    )
