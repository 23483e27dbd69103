"""What people are told: one function for each reason to tell them something.

A promotion is no reason. Not for how a message looks (`pipelines.alerts.rendering`) or travels
(`pipelines.alerts.transports`), for what to run next (`pipelines.alerts.next_step`), nor for what
was told before and is mended by now (`pipelines.alerts.incidents`).
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pipelines import storage
from pipelines.alerts.commands import cycle_command, force_command, rollback_command
from pipelines.alerts.links import Links, airflow_link, links_of, runbook_links
from pipelines.alerts.next_step import (
    after_failure,
    ask_who_serves,
    needs_somebody,
    step,
    what_serves,
)
from pipelines.alerts.outcomes import APPROVAL_TASK
from pipelines.contracts.artifacts import STAGES, ResolvedRun, RunRequest
from pipelines.contracts.errors import DataGateFailedError, HomefeedError, SnapshotDamagedError
from pipelines.contracts.judged.alert import (
    Alert,
    AlertKind,
    AlertSeverity,
    Cause,
    Cycle,
    Unresolved,
)
from pipelines.contracts.judged.approval import Approval, Question
from pipelines.contracts.judged.outcome import Outcome
from pipelines.contracts.judgement import Decision, Judgement, Promoted
from pipelines.contracts.run_layout import (
    StageFailure,
    StageRecord,
    failure_uri,
    lost_race_uri,
    manifest_uri,
    stage_lease_uri,
)
from pipelines.plain_text import one_line
from pipelines.settings import Settings

log = logging.getLogger(__name__)
_CLOCKS = timedelta(seconds=5)
"""How far the clocks of Airflow and of the machine that ran the stage may be apart."""
MAX_LISTED = 12
"""How many dates a message names one by one; of more, it names the first and the last."""


def cycle_of(request: RunRequest) -> Cycle:
    """Return the cycle that a request asks for."""
    return Cycle(day=request.day.date(), recipe=request.recipe)


def alert_about(
    kind: AlertKind,
    run: ResolvedRun,
    settings: Settings,
    title: str,
    links: Links,
    *,
    is_urgent: bool = False,
    exit_code: int | None = None,
    **said: Any,
) -> Alert:
    """Return an alert about a run.

    Args:
        kind: Why somebody is told.
        run: The cycle.
        settings: The runbook's address.
        title: What the title says after the day.
        links: Where to look, before the runbook.
        is_urgent: Whether a person has to decide though the kind as such needs nobody.
        exit_code: Of the stage that failed, for its section of the runbook.
        said: The other fields.
    """
    return Alert(
        kind=kind,
        run_id=run.run_id,
        recipe=run.config.recipe_ref,
        title=f"Homefeed retrain {run.as_of:%Y-%m-%d}: {title}",
        links=(*links, *runbook_links(kind, settings, exit_code)),
        severity=_severity(kind, is_urgent),
        cycle=cycle_of(run.to_request()),
        **said,
    )


def _severity(kind: AlertKind, is_urgent: bool) -> AlertSeverity:
    is_raised = is_urgent and kind.severity is AlertSeverity.INFO
    return AlertSeverity.WARNING if is_raised else kind.severity


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
    return alert_about(
        AlertKind.REGRESSION if is_regression else AlertKind.INCONCLUSIVE,
        run,
        settings,
        outcome.title,
        outcome.links,
        is_urgent=needs_somebody(run, judgement),
        about=(judgement.ruling_digest,),
        serves=outcome.serves,
        happened="\n".join(filter(None, (*outcome.reasons, outcome.most_hurt, *outcome.warnings))),
        certainty=outcome.number,
        done=outcome.done,
        next_step=outcome.next_step,
    )


def compose_wanted(
    run: ResolvedRun, outcome: Outcome, question: Question, settings: Settings
) -> Alert:
    """Return the alert that asks a person to approve a promotion.

    Args:
        run: The cycle.
        outcome: What became of it, with the promotion that waits.
        question: What is asked; each time that it is put is told.
        settings: Addresses for the links.
    """
    page = f"{airflow_link(run.trigger, settings)}/tasks/{APPROVAL_TASK}/required_actions"
    repeated = (
        f"Asked {question.num_times} times by now, because {APPROVAL_TASK} began anew. Whoever "
        f"has answered has to answer again."
    )
    again = (repeated,) if question.num_times > 1 else ()
    return alert_about(
        AlertKind.APPROVAL_WANTED,
        run,
        settings,
        f"a promotion waits to be approved until {_instant(question.until)}",
        (("Approve or reject", page), *outcome.links),
        about=(question.ruling_digest, question.until.isoformat(), str(question.num_times)),
        serves=outcome.serves,
        happened="\n".join((*again, outcome.title, *outcome.reasons, *outcome.warnings)),
        certainty=outcome.number,
        done=outcome.done,
        next_step=outcome.next_step,
    )


def compose_not_approved(
    run: ResolvedRun, outcome: Outcome, approval: Approval, settings: Settings
) -> Alert:
    """Return the alert about a promotion that a person did not approve.

    Args:
        run: The cycle.
        outcome: What became of it, with the promotion that waited.
        approval: The answer, or that there was none.
        settings: Addresses for the links.
    """
    return alert_about(
        AlertKind.NOT_APPROVED,
        run,
        settings,
        f"{one_line(approval.model)} was not approved",
        links_of(run, settings),
        is_urgent=not approval.by,
        about=(approval.ruling_digest, approval.at.isoformat()),
        serves=what_serves(run),
        happened=one_line(approval.sentence),
        certainty=outcome.number,
        done=f"Nothing was promoted. {what_serves(run)}",
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
    return alert_about(
        AlertKind.FORCED_PROMOTION,
        run,
        settings,
        f"{label} was promoted by hand",
        links_of(run, settings),
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
    """How a task ended that broke a run, as whoever saw it tells.

    Attributes:
        stage: The stage, one of `artifacts.STAGES`, or another task of Airflow's.
        reason: Airflow's word for the failure, such as 'timed_out'; where no Airflow ran the cycle,
            what the error said. It is told where the stage wrote nothing.
        since: When the last attempt began, where that is known. What was noted before is about an
            earlier attempt, and this one was ended before it could note anything.
        at: When the run was seen to have ended; None where that is not known.
    """

    stage: str
    reason: str = ""
    since: datetime | None = None
    at: datetime | None = None


def alert_about_failure(run_uri: str, settings: Settings, ended: Ended) -> Alert | None:
    """Return what people are told about a run that broke, or None.

    An attempt that met another process at the same stage breaks nothing, where that one has ended
    well or is still at work: then it tells how it ends. Where it is gone without a word, it was
    killed, and that is what is told.

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
    if failures and failures[0].is_lost_race and is_told_by_another(run_uri, ended.stage):
        log.info("no alert: %s", failures[0].message)
        return None
    failure = next((each for each in failures if not each.is_lost_race), None)
    return compose_failure(failure, run, settings, ended)


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


def is_told_by_another(run_uri: str, stage: str) -> bool:
    """Return whether the stage has ended well, or another process is at work on it right now.

    A failure that the other one has left is newer than the lost race, and is told itself.
    """
    return storage.exists(manifest_uri(run_uri, stage)) or storage.is_held(
        stage_lease_uri(run_uri, stage)
    )


def compose_failure(
    failure: StageFailure | None, run: ResolvedRun, settings: Settings, ended: Ended
) -> Alert:
    """Return the alert about a broken run.

    Args:
        failure: What the stage wrote; None when it was killed before it could.
        run: The cycle.
        settings: Addresses for the links.
        ended: How the stage ended.
    """
    stage = ended.stage
    kind, broken = AlertKind.BROKEN_RUN, f"{stage} broke"
    if failure is None:
        cause, instants = Cause(stage=stage, error_class=""), (ended.since, ended.at)
        when = f" at {_second(ended.at)}" if ended.at else ""
        began = f" The attempt had begun at {_second(ended.since)}." if ended.since else ""
        happened = (
            f"{stage} ended without saying why ({ended.reason or 'no reason given'}{when}): "
            f"killed, out of memory, or out of time. Its log in Airflow shows the last lines."
        )
        certainty = (
            f"The stage left no reason, so the cause is not known. A stage that was killed may be "
            f"run again: it goes on from what it has kept.{began}"
        )
    else:
        instants = (failure.occurred_at, None)
        when = _second(failure.occurred_at)
        happened = f"{failure.error_class} in {stage} at {when}:\n{failure.message}"
        certainty = _may_it_pass(failure)
        cause = Cause(
            stage=stage,
            error_class=failure.error_class,
            raised_by=failure.raised_by,
            about=failure.about,
        )
        refusals = (DataGateFailedError.__name__, SnapshotDamagedError.__name__)
        judged = {"build_snapshot": "event log", "check_snapshot": "snapshot"}.get(failure.stage)
        if judged and failure.error_class in refusals:
            kind, broken = AlertKind.DATA_GATE_FAILED, f"the data gate refused the {judged}"
    serves, done = _what_stays(stage, run)
    docs = (("Data Docs", failure.docs_uri),) if failure and failure.docs_uri else ()
    return alert_about(
        kind,
        run,
        settings,
        broken,
        (*links_of(run, settings), *docs),
        exit_code=failure.exit_code if failure else None,
        about=(stage, cause.error_class, *(each.isoformat() for each in instants if each)),
        serves=serves,
        happened=happened,
        certainty=certainty,
        done=done,
        next_step=after_failure(run, stage, failure),
        at=failure.occurred_at if failure else None,
        cause=cause,
    )


def _what_stays(stage: str, run: ResolvedRun) -> tuple[str, str]:
    """Say which model serves where a stage has failed, and what was done."""
    # Of these two the one beside the other may have ended, or not.
    unknown = "Which model serves is not known here: ask with the command below."
    if stage == "promote_challenger":
        return unknown, (
            "The promotion did not end, so the champion may have moved or not. "
            "Running the stage again completes the promotion or refuses it."
        )
    if stage == "alert":
        return unknown, (
            "Only the message about the verdict was not delivered everywhere; it lies in the "
            "outbox folder of the workspace."
        )
    serves = what_serves(run)
    return serves, f"The run stopped there and promoted nothing. {serves}"


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


def compose_unresolved(trigger: str, broken: Unresolved, settings: Settings) -> Alert:
    """Return the alert about a run that broke before it had a folder.

    Args:
        trigger: Airflow's run id.
        broken: What `resolve_run` has left of it.
        settings: Addresses for the links.
    """
    kind, when = AlertKind.BROKEN_RUN, f" at {_second(broken.at)}" if broken.at else ""
    happened = f"resolve_run failed{when}:\n{broken.message}"
    if not broken.message:
        happened = f"resolve_run did not end; the run failed{when}. Its log in Airflow says why."
    at = (broken.at.isoformat(),) if broken.at else ()
    return Alert(
        kind=kind,
        run_id=trigger,
        about=(broken.cause.stage, broken.cause.error_class, *at),
        title="Homefeed retrain broke in resolve_run",
        happened=happened,
        certainty="Certain: the task failed, and no later stage began.",
        done="Nothing was built, trained or promoted. The champion is what it was.",
        next_step=broken.next_step,
        links=(
            ("Airflow run", airflow_link(trigger, settings)),
            *runbook_links(kind, settings),
        ),
        severity=kind.severity,
        at=broken.at,
        cycle=broken.cycle,
        cause=broken.cause,
    )


@dataclass(frozen=True)
class MissedCycles:
    """Cycles that did not run, as a scheduled run found them when it started.

    Attributes:
        skipped: due instants of the cycles, oldest first, at least one.
        due: the due instant of the run that found them.
        started_at: when that run started.
        is_too_late: whether that run is skipped too, because it started too late.
        max_lateness: how long after its due instant a cycle may start.
        next_due: due instant of the cycle that follows, or of the newest one that has come since.
    """

    skipped: tuple[datetime, ...]
    due: datetime
    started_at: datetime
    is_too_late: bool
    max_lateness: timedelta
    next_due: datetime


def compose_missed(missed: MissedCycles, request: RunRequest, settings: Settings) -> Alert:
    """Return the alert about cycles that were skipped.

    Args:
        missed: what was found.
        request: what the run that found them asked for.
        settings: addresses for commands and links.
    """
    kind, newest = AlertKind.MISSED_CYCLE, missed.skipped[-1]
    skipped = request.model_copy(update={"as_of": newest})
    # A newer cycle than the skipped ones runs now, or has come and is next.
    is_newer_under_way = not missed.is_too_late or missed.next_due <= missed.started_at
    which = "the cycle was" if len(missed.skipped) == 1 else f"{len(missed.skipped)} cycles were"
    happened = (
        f"No cycle ran for {_listed(missed.skipped)}.\n"
        f"This was seen when Airflow started the run of {_instant(missed.due)} at "
        f"{_instant(missed.started_at)}, {_span(missed.started_at - missed.due)} after its date."
    )
    done = f"The cycle of {_instant(missed.due)} is running, as of its own date."
    if missed.is_too_late:
        happened = (
            f"{happened} A cycle may start up to {_span(missed.max_lateness)} late, so that run "
            f"was skipped."
        )
        done = "Nothing was trained, and the champion is what it was."
    next_step = step(
        "Find out why nobody started the cycle. If the champion should not wait for the next one, "
        "run the newest skipped cycle now; or clear its run in Airflow, which then runs whatever "
        "its date.",
        ("Run the newest skipped cycle now:", cycle_command(skipped, settings)),
        ask_who_serves(settings),
    )
    if is_newer_under_way:
        next_step = step(
            "Nothing has to be run: a newer cycle runs now or is next, and tells if it does not "
            "run. Find out why nobody started the skipped ones.",
            ask_who_serves(settings),
        )
    return Alert(
        kind=kind,
        run_id=request.trigger,
        about=tuple(each.isoformat() for each in missed.skipped),
        title=f"Homefeed retrain {newest:%Y-%m-%d}: {which} skipped",
        happened=happened,
        certainty=(
            "Certain: the schedule names these dates, and the workspace holds no cycle of those "
            "days. The cause is not on record: Airflow was down, the DAG was paused, or an earlier "
            "run took too long."
        ),
        done=f"{done} Skipped cycles are not replayed; the next one is that of "
        f"{_instant(missed.next_due)}.",
        next_step=next_step,
        links=(
            ("Airflow run", airflow_link(request.trigger, settings)),
            *runbook_links(kind, settings),
        ),
        severity=_severity(kind, not is_newer_under_way),
        at=missed.started_at,
        cycle=cycle_of(skipped),
    )


def _listed(instants: Sequence[datetime]) -> str:
    if len(instants) > MAX_LISTED:
        first, last = _instant(instants[0]), _instant(instants[-1])
        return f"{len(instants)} due dates, from {first} to {last}"
    return ", ".join(map(_instant, instants))


def _instant(instant: datetime) -> str:
    return f"{instant:%Y-%m-%d %H:%M} UTC"


def _second(instant: datetime) -> str:
    return f"{instant:%Y-%m-%d %H:%M:%S} UTC"


def _span(duration: timedelta) -> str:
    if duration < timedelta(days=2):
        return f"{duration / timedelta(hours=1):.1f} hours"
    return f"{duration / timedelta(days=1):.1f} days"
