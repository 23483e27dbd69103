"""What is told where a recipe wants a person's approval before a promotion.

Not for asking (`pipelines.orchestration.approval`). Tested in
tests/pipelines/alerts/test_approvals.py.
"""

from datetime import datetime

from pipelines.alerts.commands import force_command, runnable, serving_command
from pipelines.alerts.incidents import cycle_of
from pipelines.alerts.links import airflow_link, links_of, runbook_links
from pipelines.alerts.next_step import what_serves
from pipelines.alerts.severity import severity_of
from pipelines.contracts.artifacts import ResolvedRun
from pipelines.contracts.judged.alert import Alert, AlertKind, NextStep
from pipelines.contracts.judged.approval import Approval
from pipelines.contracts.judged.outcome import Outcome
from pipelines.contracts.judgement import Judgement
from pipelines.plain_text import one_line
from pipelines.settings import Settings

TASK = "approve_promotion"
"""The task that asks."""


def who_may(run: ResolvedRun) -> str:
    """Return who is asked, for people."""
    asked = run.config.promotion.approval
    return one_line(" or ".join(asked.by)) if asked is not None and asked.by else "somebody"


def waiting(run: ResolvedRun, judgement: Judgement) -> dict[str, object]:
    """Return what an `Outcome` says of a promotion that waits for a person."""
    model, asked = judgement.promoted_model, run.config.promotion.approval
    assert model is not None and asked is not None, "somebody is asked"
    challenger = judgement.comparison.challenger_model
    other = "" if model == challenger else f"{challenger.label} was not promoted. "
    stays = what_serves(run)
    hours = f"{asked.within_hours:g} hour{'' if asked.within_hours == 1 else 's'}"
    return {
        "serves": f"{stays} {model.label} takes its place if {who_may(run)} approves.",
        "done": f"{other}{model.label} waits to be approved by {who_may(run)}, for at most "
        f"{hours}.",
        "next_step": NextStep(
            sentence=f"Approve or reject in Airflow, in the run's task {TASK}. Without an answer "
            f"nothing is promoted.",
            commands=(("Ask which model serves:", runnable(serving_command(run))),),
        ),
    }


def compose_wanted(
    run: ResolvedRun, outcome: Outcome, until: datetime, settings: Settings, num_times: int = 1
) -> Alert:
    """Return the alert that asks for an answer.

    Args:
        run: The cycle.
        outcome: What became of it, with the promotion that waits.
        until: When the question is closed.
        settings: Addresses for the links.
        num_times: How often it was asked by now. A repeated question has words of its own, because
            the outbox sends the same words once.
    """
    page = f"{airflow_link(run.trigger, settings)}/tasks/{TASK}/required_actions"
    kind = AlertKind.APPROVAL_WANTED
    repeated = (
        f"Asked {num_times} times by now, because {TASK} began anew. Whoever has answered has to "
        f"answer again."
    )
    again = (repeated,) if num_times > 1 else ()
    return Alert(
        kind=kind,
        run_id=run.run_id,
        recipe=run.config.recipe_ref,
        title=f"Homefeed retrain {run.as_of:%Y-%m-%d}: a promotion waits to be approved until "
        f"{until:%Y-%m-%d %H:%M} UTC",
        serves=outcome.serves,
        happened="\n".join((*again, outcome.title, *outcome.reasons, *outcome.warnings)),
        certainty=outcome.number,
        done=outcome.done,
        next_step=outcome.next_step,
        links=(("Approve or reject", page), *outcome.links, *runbook_links(kind, settings)),
        severity=severity_of(kind),
        cycle=cycle_of(run.to_request()),
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
    stays, kind = what_serves(run), AlertKind.NOT_APPROVED
    return Alert(
        kind=kind,
        run_id=run.run_id,
        recipe=run.config.recipe_ref,
        title=f"Homefeed retrain {run.as_of:%Y-%m-%d}: {one_line(approval.model)} was not approved",
        serves=stays,
        happened=one_line(approval.sentence),
        certainty=outcome.number,
        done=f"Nothing was promoted. {stays}",
        next_step=NextStep(
            sentence="The question is closed. The next cycle asks about its own model.",
            commands=(
                ("Ask which model serves:", runnable(serving_command(run))),
                ("Promote the challenger all the same:", runnable(force_command(run))),
            ),
        ),
        links=(*links_of(run, settings), *runbook_links(kind, settings)),
        severity=severity_of(kind, needs_somebody=not approval.by),
        at=approval.at,
        cycle=cycle_of(run.to_request()),
    )
