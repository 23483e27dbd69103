"""The outcome of a cycle in words: one function, whose value every place shows as it is.

The alert, the verdict page and the command line all show what is composed here, so that they never
disagree. Not for what is told of a cycle that was not judged (`pipelines.alerts.compose`), nor for
how a command is spelled (`pipelines.alerts.commands`).
"""

import shlex
from datetime import timedelta

from pipelines.alerts.commands import (
    Offered,
    ask_who_serves,
    command_at,
    force_command,
    new_cycle_command,
    rollback_command,
    step,
)
from pipelines.alerts.links import Links, links_of
from pipelines.contracts.alert import NextStep
from pipelines.contracts.artifacts import DataReport, ExpectationOutcome, ResolvedRun
from pipelines.contracts.judgement import (
    Comparison,
    Decision,
    Direction,
    Judgement,
    Outcome,
    Promoted,
    Promotion,
)
from pipelines.contracts.reasons import Interval
from pipelines.plain_text import one_line
from pipelines.settings import Settings

APPROVAL_TASK = "approve_promotion"
"""The task that asks whether a model may serve, where the recipe wants a person to say so."""
_VOID = "the comparison is void and its numbers count for nothing"


def outcome_of(
    run: ResolvedRun,
    judgement: Judgement,
    report: DataReport | None,
    settings: Settings,
    in_mlflow: Links = (),
    is_void: bool = False,
) -> Outcome:
    """Return what people are told about a cycle.

    Args:
        run: The cycle.
        judgement: What was found and ruled, with the page's published place.
        report: What the data gate found; None where that is not known.
        settings: Addresses for the links.
        in_mlflow: Where MLflow shows the comparison.
        is_void: Whether nothing follows from the comparison, whatever its numbers are.
    """
    comparison, verdict = judgement.comparison, judgement.verdict
    change = None if is_void else comparison.target_change
    direction = direction_of(change)
    reasons = tuple(map(one_line, verdict.reasons))
    percent = f": {_percent(change)}" if change else ""
    told = _VOID if is_void else f"{comparison.target_metric} {direction}{percent}"
    serves, done, next_step = _fate(run, judgement)
    return Outcome(
        decision=verdict.decision.value,
        title=f"{comparison.challenger_model.label} {_finding(run, judgement)}, {told}",
        serves=serves,
        metric=comparison.target_metric,
        direction=direction,
        change=change,
        number=f"{_VOID.capitalize()}." if is_void else _number(comparison),
        why=reasons[0],
        reasons=reasons,
        most_hurt="" if is_void else _most_hurt(comparison),
        warnings=tuple(map(_warning, report.warnings)) if report else (),
        done=done,
        next_step=next_step,
        links=(
            ("Verdict page", judgement.report_uri),
            *in_mlflow,
            *links_of(run, settings, report),
        ),
    )


def kept_outcome(
    run: ResolvedRun, judgement: Judgement, settings: Settings, report: DataReport | None = None
) -> Outcome:
    """Return the outcome that was made when a cycle was judged; for others it is made now."""
    return judgement.outcome or outcome_of(run, judgement, report, settings)


def what_serves(run: ResolvedRun) -> str:
    """Say which model serves where this cycle promotes none."""
    champion = run.later_champion or run.champion
    if champion is None:
        return "There is no champion yet."
    return f"{champion.label} (as_of {champion.as_of:%Y-%m-%d}) stays champion."


def what_was_promoted(promotion: Promotion) -> str:
    """Say what a cycle did to the champion. What serves now, only `homefeed serving` knows."""
    if promotion.is_promoted and promotion.champion_after is not None:
        return f"this cycle promoted {promotion.champion_after.label}"
    return "this cycle promoted nothing"


def direction_of(change: Interval | None) -> Direction:
    """Return what an interval of a change says about its direction."""
    if change is None:
        return "not compared"
    if change.high < 0:
        return "worse"
    return "better" if change.low > 0 else "cannot tell"


def needs_somebody(run: ResolvedRun, judgement: Judgement) -> bool:
    """Return whether a person has to decide something before a cycle like this one promotes."""
    is_nothing = judgement.verdict.promoted is Promoted.NONE
    return is_nothing and bool(judgement.problem or judgement.hold or _num_waited(run))


def _num_waited(run: ResolvedRun) -> int:
    """Return the cycles without a promotion where they are too many, else 0."""
    number = len({*run.standing.unpromoted, run.as_of})
    is_long = run.may_promote and number >= run.config.model_gate.max_unpromoted_cycles
    return number if is_long else 0


def _fate(run: ResolvedRun, judgement: Judgement) -> tuple[str, str, NextStep]:
    """Return which model will serve, what the pipeline does, and what a person may do."""
    model, challenger = judgement.promoted_model, judgement.comparison.challenger_model
    stays, ask = what_serves(run), ask_who_serves(run)
    if model is None or not run.may_promote:
        stays_out = f"{challenger.label} was not promoted. {stays}"
        if model is None:
            return stays, stays_out, _after_no_promotion(run, judgement, (ask,))
        told = "This run may not promote: it is a backfill, or promotion was switched off."
        again = ("Run the cycle allowed to promote:", new_cycle_command(run, may_promote=True))
        offered = () if run.later_champion else (again,)
        return stays, stays_out, step(f"{stays} {told}", ask, *offered)
    asked = run.config.promotion.approval
    if asked and judgement.waits_for_approval(run):
        who = one_line(" or ".join(asked.by)) or "somebody"
        told = f"Approve or reject in Airflow, in the run's task {APPROVAL_TASK}."
        return (
            f"{stays} {model.label} takes its place if {who} approves.",
            f"{model.label} waits to be approved by {who}, for {asked.within_hours:g} h at most.",
            step(f"{told} Without an answer nothing is promoted.", ask),
        )
    before = f" in place of {run.champion.label}" if run.champion else ""
    serves = f"{model.label} (as_of {model.as_of:%Y-%m-%d}) becomes champion{before}."
    told = f"The pipeline makes {model.label} the champion, unless the champion has changed."
    done = f"{challenger.label} is promoted."
    if judgement.verdict.promoted is Promoted.ANCHOR:
        done = f"{model.label}, the accepted recipe on the same rows, is promoted in its place."
    if run.champion is None:
        return serves, done, step(told, ask)
    # The versions are named: what `rollback` alone does depends on what serves by then.
    command = rollback_command(run, run.champion.version, model.version)
    return serves, done, step(told, ask, (f"Go back to {run.champion.label}:", command))


def _after_no_promotion(
    run: ResolvedRun, judgement: Judgement, offered: tuple[Offered, ...]
) -> NextStep:
    stays, recipe = what_serves(run), run.config
    accept = command_at(
        run, f"anchor set --recipe {shlex.quote(recipe.reference)} --reason 'why it is accepted'"
    )
    if judgement.problem:
        offered += (("Name the accepted recipe:", accept),)
    elif run.standing.hold:
        release = f"anchor release --recipe {recipe.recipe_digest[:12]}"
        release = command_at(run, f"{release} --reason 'why it may come back'")
        offered += (("Let the recipe be promoted again:", release),)
    elif judgement.hold:
        offered += (("Once you have looked at the long-term line, accept a recipe:", accept),)
    elif waited := _num_waited(run):
        stays = f"{stays} Nothing was promoted in {waited} cycles: somebody has to decide."
        offered += (
            ("Promote this challenger in spite of the verdict:", force_command(run)),
            ("Accept this run's recipe, so that later ones are held to it:", accept),
        )
    if judgement.verdict.decision is Decision.REJECT:
        return step(stays, *offered, ("After a fix of data or code:", new_cycle_command(run)))
    # The same holdout is not asked again: trying until it agrees would make chance the judge.
    as_of = run.as_of + timedelta(days=run.config.snapshot.holdout_days)
    fresh = f"Once the event log holds every day before {as_of:%Y-%m-%d}, on a fresh holdout:"
    return step(stays, *offered, (fresh, new_cycle_command(run, as_of=as_of)))


def _finding(run: ResolvedRun, judgement: Judgement) -> str:
    """Return what became of the challenger, as the end of a sentence about it."""
    if judgement.verdict.promoted is Promoted.CHALLENGER:
        if judgement.waits_for_approval(run):
            return "is promoted if a person approves"
        return (
            "is promoted" if run.may_promote else "may be promoted, and this run promotes nothing"
        )
    if judgement.verdict.decision is Decision.REJECT:
        return "was rejected"
    return "was not promoted: it is not known to be good enough"


def _percent(change: Interval) -> str:
    value, low, high = (100 * each for each in (change.value, change.low, change.high))
    return f"{value:+.2f} % ({100 * change.confidence:g} %: {low:+.2f} to {high:+.2f} %)"


def _number(comparison: Comparison) -> str:
    """Return the change with interval, sizes and power, or that there is none."""
    rows = f"{comparison.num_users:,} users and {comparison.num_requests:,} requests"
    row = comparison.target
    if row is None or row.relative_change is None:
        return f"{comparison.target_metric} could not be compared on {rows}; the gate fails closed."
    return (
        f"{comparison.target_metric}: {row.challenger:.4f} against {row.baseline:.4f} "
        f"({comparison.baseline_label}), {_percent(row.relative_change)}, on {rows}. This holdout "
        f"shows changes of {comparison.detectable_change} and more with 80 % power."
    )


def _most_hurt(comparison: Comparison) -> str:
    """Name the segment whose target metric falls most; '' where none falls."""
    changes = [
        (row.segment, row.relative_change)
        for row in comparison.metrics
        if row.metric == comparison.target_metric and row.segment != "all" and row.relative_change
    ]
    segment, change = min(changes, key=lambda each: each[1].value, default=("", None))
    if change is None or change.value >= 0:
        return ""
    return (
        f"Segment {one_line(segment)} loses most: {comparison.target_metric} {_percent(change)}, "
        f"{comparison.segment_users.get(segment, 0):,} users."
    )


def _warning(found: ExpectationOutcome) -> str:
    where = f" in {', '.join(found.partitions[:3])}" if found.partitions else ""
    return one_line(
        f"The data gate warned of {found.name}: found {found.observed}{where}; expected "
        f"{found.expected}."
    )
