"""What people are told: one function for each reason to tell them something.

A promotion is no reason. Each function takes what happened and the settings, for the addresses of
its links. Not for how a message looks (`pipelines.alerts.rendering`) or travels
(`pipelines.alerts.transports`), nor for what was told before and is mended by now
(`pipelines.alerts.incidents`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pipelines import storage
from pipelines.alerts.commands import (
    accept_shift_command,
    command_at,
    cycle_command,
    force_command,
    new_cycle_command,
    rollback_command,
    stage_command,
    step,
)
from pipelines.alerts.links import HOME, Links, airflow_link, home_link, page_link, runbook_link
from pipelines.alerts.outcomes import APPROVAL_TASK, needs_somebody
from pipelines.contracts.alert import (
    Alert,
    AlertKind,
    AlertSeverity,
    Cause,
    Cycle,
    NextStep,
    Unresolved,
)
from pipelines.contracts.artifacts import STAGES, ModelRef, ResolvedRun, RunRequest
from pipelines.contracts.errors import (
    BUNDLE_MISSING,
    PERMANENT_EXIT_CODES,
    DataContractError,
    PromotionRefusedError,
    SnapshotDamagedError,
)
from pipelines.contracts.judgement import Approval, Decision, Judgement, Outcome, Promoted
from pipelines.contracts.run_layout import StageFailure, failure_uri
from pipelines.contracts.stage_table import TABLE
from pipelines.plain_text import one_line
from pipelines.registry.history import Move
from pipelines.settings import Settings

_MINUTE = "%Y-%m-%d %H:%M UTC"


def cycle_of(request: RunRequest) -> Cycle:
    """Return the cycle that a request asks for."""
    return Cycle(day=request.day.date(), recipe=request.recipe)


def make_alert(
    kind: AlertKind,
    settings: Settings,
    run: ResolvedRun | str,
    *,
    title: str,
    links: Links = (),
    is_urgent: bool = False,
    **said: Any,
) -> Alert:
    """Return an alert with its severity and its sections of the runbook.

    Args:
        kind: Why somebody is told.
        settings: Addresses for the links.
        run: The cycle; Airflow's run id where no cycle was resolved.
        title: One line; the day of the cycle is put before it.
        links: Where to look first, by default the run's page in Airflow; others follow.
        is_urgent: Whether a person has to decide though the kind as such needs nobody.
        said: The other fields.
    """
    is_raised = is_urgent and kind.severity is AlertSeverity.INFO
    trigger = run if isinstance(run, str) else run.trigger
    first = links[:1] or (("Airflow run", airflow_link(trigger, settings)),)
    links = (*first, (HOME, home_link(settings)))
    if isinstance(run, str):
        said["run_id"] = run
    else:
        title = f"{run.as_of:%Y-%m-%d}: {title}"
        said |= {"run_id": run.run_id, "recipe": run.config.recipe_ref}
        said["cycle"] = cycle_of(run.to_request())
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
    # The title has the target's change and what it says.
    is_new = not judgement.verdict.grounds[0].code.startswith("target_")
    found = [*outcome.reasons[: int(is_new)], outcome.most_hurt, *outcome.warnings]
    found = [each for each in found if each]
    more = f" {len(found) - 2} more on the page." if len(found) > 2 else ""
    return make_alert(
        AlertKind.REGRESSION if is_regression else AlertKind.INCONCLUSIVE,
        settings,
        run,
        title=outcome.title,
        links=_page_of(outcome),
        is_urgent=needs_somebody(run, judgement),
        changed=outcome.changed,
        about=(judgement.ruling_digest,),
        happened="\n".join(found[:2]) + more,
        certainty=judgement.comparison.power if outcome.change else outcome.number,
        done=outcome.done if judgement.promoted_model else "",
        next_step=outcome.next_step,
    )


def _page_of(outcome: Outcome) -> Links:
    return tuple(each for each in outcome.links if each[0] == "Verdict page")


def compose_wanted(
    run: ResolvedRun, outcome: Outcome, digest: str, until: datetime, times: int, settings: Settings
) -> Alert:
    """Return the alert that asks a person to approve a promotion; each time it is put is told.

    `digest` is of the judgement that people are shown; the question is closed at `until`.
    """
    page = f"{airflow_link(run.trigger, settings)}/tasks/{APPROVAL_TASK}/required_actions"
    return make_alert(
        AlertKind.APPROVAL_WANTED,
        settings,
        run,
        links=(("Approve or reject", page),),
        title=f"a promotion waits to be approved until {until:{_MINUTE}}",
        changed=outcome.changed,
        about=(digest, until.isoformat(), str(times)),
        happened="\n".join((outcome.title, *outcome.warnings[:1])),
        done=outcome.done,
        next_step=outcome.next_step,
        num_times=times,
    )


def compose_not_approved(
    run: ResolvedRun, outcome: Outcome, approval: Approval, settings: Settings
) -> Alert:
    """Return the alert about a promotion that a person rejected, or that nobody answered for."""
    return make_alert(
        AlertKind.NOT_APPROVED,
        settings,
        run,
        title=f"{one_line(approval.model)} was not approved",
        is_urgent=not approval.by,
        about=(approval.ruling_digest, approval.at.isoformat()),
        links=_page_of(outcome),
        changed=outcome.changed,
        happened=one_line(approval.sentence),
        certainty=outcome.title,
        next_step=step(
            "The question is closed. The next cycle asks about its own model.",
            ("Promote the challenger all the same:", force_command(run)),
        ),
        at=approval.at,
    )


def compose_forced(run: ResolvedRun, move: Move, verdict: str, settings: Settings) -> Alert:
    """Return the alert about a challenger that a person promoted in spite of the verdict.

    `verdict` is what the gate had said, for people.
    """
    label, back = move.model.label, rollback_command(run, away=move.model.version)
    return make_alert(
        AlertKind.FORCED_PROMOTION,
        settings,
        run,
        title=f"{label} was promoted by hand",
        about=(label, _label(move.previous), move.reason),
        happened=_told_of(move, f"made {label} champion in spite of the verdict"),
        certainty=f"What the gate had said: {verdict}",
        done=f"It takes the place of {_label(move.previous)}.",
        next_step=step(
            "Watch what users do now. A rollback takes the promotion back.",
            ("Go back to the version before:", back),
        ),
    )


def compose_moved(move: Move, settings: Settings) -> Alert:
    """Return the alert about a rollback, or about a repair that said what serves."""
    label, before = move.model.label, _label(move.previous)
    is_back, is_other = move.kind == "rollback", move.model != move.previous
    return make_alert(
        AlertKind.CHAMPION_MOVED,
        settings,
        "command line",
        title=f"{'rollback' if is_back else 'repair'}: {label} serves"
        + f" in place of {before}" * is_other,
        about=(str(move.number), move.mark),
        happened=_told_of(move, "went back" if is_back else "put it on record"),
        next_step=step(
            "Nothing has to be done.", ("See all moves:", command_at(settings, "history"))
        ),
        at=move.moved_at,
    )


def compose_serving(server: str, title: str, about: str, said: str, settings: Settings) -> Alert:
    """Return the alert about what a server, by its address, does not do; told once `about` it."""
    return make_alert(
        AlertKind.SERVING_FAULT,
        settings,
        "command line",
        title=f"serving: {title}",
        about=(about,),
        happened=f"{server}: {one_line(said)}",
        done="The server goes on answering with the model that it has.",
        next_step=step("Mend what is named.", ("See what serves:", command_at(settings, "status"))),
    )


def compose_test(settings: Settings, now: datetime) -> Alert:
    """Return an alert that says nothing but that it has arrived."""
    return make_alert(
        AlertKind.TEST,
        settings,
        "command line",
        title="test: alerts arrive",
        about=(now.isoformat(),),
        happened="Somebody asked for this: `homefeed alert test`.",
        next_step=step(
            "Nothing has to be done.", ("Look at status:", command_at(settings, "status"))
        ),
        at=now,
    )


def _label(model: ModelRef | None) -> str:
    return model.label if model else "no champion"


def _told_of(move: Move, what: str) -> str:
    return f"{one_line(move.by) or 'Somebody'} {what}: {one_line(move.reason)}"


@dataclass(frozen=True)
class Ended:
    """How a task ended that broke a run, as whoever saw it tells."""

    stage: str  # One of `artifacts.STAGES`, or another task of Airflow's.
    reason: str = ""  # Airflow's word, or what the error said; told where the stage wrote nothing.
    since: datetime | None = None  # When the attempt began: what is older is about another one.
    at: datetime | None = None  # When the run was seen to have ended.


def alert_about_failure(run: ResolvedRun, settings: Settings, ended: Ended) -> Alert:
    """Return what people are told about a run that broke, by its stage's `failure.json` if any."""
    failure = find_failure(run.run_uri, [ended.stage])
    if failure is not None and ended.since and failure.occurred_at < ended.since:
        failure = None
    return compose_failure(failure, run, settings, ended)


def find_failure(run_uri: str, stages: Iterable[str]) -> StageFailure | None:
    """Return the newest failure that one of the stages of a run has left, or None."""
    uris = [failure_uri(run_uri, name) for name in stages]
    repair = "delete it: a failure is noted anew when it recurs"
    found = [failure for uri in uris if (failure := storage.find_model(uri, StageFailure, repair))]
    return max(found, key=lambda failure: failure.occurred_at, default=None)


def compose_failure(
    failure: StageFailure | None, run: ResolvedRun, settings: Settings, ended: Ended
) -> Alert:
    """Return the alert about a broken run; `failure` is None for a stage that was killed."""
    stage, links = ended.stage, Links()
    kind, title, cause = AlertKind.BROKEN_RUN, f"{stage} broke", Cause(stage=stage, error_class="")
    instants = [each for each in (ended.since, ended.at) if each]
    happened = (
        f"{stage} ended without saying why ({ended.reason}): killed, or out of memory or time."
    )
    certainty = "The cause is not known. A stage that was killed may be run again: it goes on."
    if failure is not None:
        name, instants = failure.error_class, [failure.occurred_at]
        told = {"raised_by": failure.raised_by, "about": failure.about}
        cause = Cause(stage=stage, error_class=name, **told)
        happened = f"{name} in {stage}: {failure.message}"
        certainty = "The cause may pass; what was tried so far did not help."
        if failure.exit_code in PERMANENT_EXIT_CODES:
            certainty = f"Trying again will fail the same way (exit code {failure.exit_code})."
        if failure.docs_uri:
            kind, title = AlertKind.DATA_GATE_FAILED, "the data gate refused the data"
            links = (("Data Docs", page_link(failure.docs_uri, run.workspace_uri, settings)),)
    return make_alert(
        kind,
        settings,
        run,
        title=title,
        links=links,
        about=(stage, cause.error_class, *(each.isoformat() for each in instants)),
        happened=happened,
        certainty=certainty,
        next_step=after_failure(run, stage, failure),
        cause=cause,
        at=failure.occurred_at if failure else datetime.now(UTC),
    )


def after_failure(run: ResolvedRun, stage: str, failure: StageFailure | None) -> NextStep:
    """Return how a broken run is mended; a stage that was killed has left no failure."""
    new = ("Start a new cycle on the same day:", new_cycle_command(run))
    if stage not in STAGES:  # The question to people is Airflow's own.
        return step(f"Mend what its log names, then clear {stage} in Airflow.", new)
    again = (
        ("Run the failed stage again:", stage_command(stage, run.run_uri)),
        ("Run what is left of the cycle:", cycle_command(run.to_request(), run)),
    )
    if failure is None:
        return step("Look at the end of the stage's log, then run the stage again.", *again)
    if failure.acceptable:  # The data gate has refused what a person may accept.
        told = "If the data are right, accept them and run the stage again; else mend them."
        accept = (
            (f"If the data are right, accept {name}:", accept_shift_command(run.run_uri, name))
            for name in failure.acceptable
        )
        return step(told, *accept, *again, new)
    is_mendable = (
        failure.error_class == SnapshotDamagedError.__name__ or BUNDLE_MISSING in failure.about
    )
    is_of_the_data = failure.exit_code == DataContractError.exit_code and TABLE[stage].is_judging
    is_refused = failure.exit_code == PromotionRefusedError.exit_code
    if is_refused or (is_of_the_data and not is_mendable):
        told = "This run's inputs are fixed: mend what the message names, then start a new cycle."
        return step(told, new)
    return step("Mend what the message names, then run the stage again.", *again)


def begin_again(request: RunRequest, settings: Settings) -> NextStep:
    """Return how a cycle is begun that broke in `resolve_run`."""
    return step(
        "Mend what the message names, begin the cycle, then clear the failed task in Airflow. If "
        "the day or the recipe was not meant, trigger another run instead.",
        ("Begin the cycle:", cycle_command(request, settings, "resolve")),
    )


def compose_unresolved(trigger: str, broken: Unresolved, settings: Settings) -> Alert:
    """Return the alert about a run, by Airflow's id, that broke before it had a folder."""
    return make_alert(
        AlertKind.BROKEN_RUN,
        settings,
        trigger,
        about=(broken.cause.stage, broken.cause.error_class, broken.at.isoformat()),
        title="broke in resolve_run",
        happened=broken.message,
        certainty="Certain: no later stage began.",
        next_step=broken.next_step,
        at=broken.at,
        cycle=broken.cycle,
        cause=broken.cause,
    )


def compose_missed(
    skipped: Sequence[datetime], request: RunRequest, settings: Settings, is_newer: bool
) -> Alert:
    """Return the alert about cycles that were skipped.

    Args:
        skipped: Due instants of the cycles, oldest first, at least one.
        request: Of the run that found them.
        settings: Addresses for the links.
        is_newer: Whether a newer cycle than the skipped ones runs now, or has come and is next.
    """
    newest = skipped[-1]
    asked = request.model_copy(update={"as_of": newest})
    next_step = step("Nothing has to be run: a newer cycle runs now or is next.")
    if not is_newer:
        next_step = step(
            "If the champion should not wait for the next cycle, run the newest skipped one now, "
            "or clear its run in Airflow.",
            ("Run the newest skipped cycle now:", cycle_command(asked, settings)),
        )
    return make_alert(
        AlertKind.MISSED_CYCLE,
        settings,
        request.trigger,
        is_urgent=not is_newer,
        about=tuple(each.isoformat() for each in skipped),
        title=f"{newest:%Y-%m-%d}: cycles were skipped ({len(skipped)})",
        happened=f"No cycle ran for due dates from {skipped[0]:{_MINUTE}} to {newest:{_MINUTE}}.",
        certainty="Certain. The cause is not on record: Airflow was down, the DAG was paused, or "
        "an earlier run took too long.",
        done="Skipped cycles are not replayed.",
        next_step=next_step,
        cycle=cycle_of(asked),
    )
