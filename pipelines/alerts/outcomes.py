"""The outcome of a cycle in words: one function, whose value every place shows as it is.

The alert, the verdict page and the command line all show what is composed here, so that they never
disagree. Not for what is told of a cycle that was not judged (`pipelines.alerts.compose`), nor for
how a command is spelled (`pipelines.alerts.commands`).
"""

from datetime import timedelta

from pipelines.alerts.commands import (
    Offered,
    ask_who_serves,
    command_at,
    force_command,
    new_cycle_command,
    quoted,
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
from pipelines.contracts.reasons import BaselineKind, Interval
from pipelines.plain_text import one_line
from pipelines.settings import Settings

APPROVAL_TASK = "approve_promotion"
"""The task that asks whether a model may serve, where the recipe wants a person to say so."""
_NOT_PROMOTED = "was not promoted: it is not known to be good enough"
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
    change = comparison.target.relative_change if comparison.target and not is_void else None
    direction = direction_of(change)
    reasons = tuple(map(one_line, verdict.reasons))
    if is_void:  # Also then the challenger is rejected where it could not serve.
        finding = "was rejected" if verdict.decision is Decision.REJECT else _NOT_PROMOTED
        finding = f"{finding}, {_VOID}"
    else:
        percent = f": {_percent(change)}" if change else ""
        finding = f"{_finding(run, judgement)}, {comparison.target_metric} {direction}{percent}"
    serves, done, next_step = _fate(run, judgement)
    return Outcome(
        decision=verdict.decision.value,
        title=f"{comparison.challenger_model.label} {finding}",
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
    return is_nothing and bool(judgement.problem or run.standing.hold or _num_waited(run))


def _num_waited(run: ResolvedRun) -> int:
    """Return the cycles without a promotion where they are too many, else 0."""
    number = len({*run.standing.unpromoted, run.as_of})
    is_long = run.may_promote and number >= run.config.model_gate.max_unpromoted_cycles
    return number if is_long else 0


def _fate(run: ResolvedRun, judgement: Judgement) -> tuple[str, str, NextStep]:
    """Return which model will serve, what the pipeline does, and what a person may do."""
    model, by = judgement.promoted_model, judgement.verdict.promoted
    challenger, ask = judgement.comparison.challenger_model, ask_who_serves(run)
    stays = what_serves(run)
    back: tuple[Offered, ...] = ()
    # Where nothing served before the cycle, nobody needs to ask.
    serving = (ask,) if run.later_champion or run.champion else ()
    stays_out = f"{challenger.label} was not promoted. {stays}"
    if model is None:
        return stays, stays_out, _after_no_promotion(run, judgement)
    if not run.may_promote:
        if run.later_champion is not None:
            told = f"This run may not promote, and no run as of {run.as_of:%Y-%m-%d} could."
            return stays, stays_out, step(f"{stays} {told}", *serving)
        told = "This run may not promote: it is a backfill, or promotion was switched off."
        again = ("Run the cycle allowed to promote:", new_cycle_command(run, may_promote=True))
        return stays, stays_out, step(f"{stays} {told}", *serving, again)
    if judgement.waits_for_approval(run):
        asked = run.config.promotion.approval
        assert asked is not None, "somebody is asked"
        other = "" if model == challenger else f"{challenger.label} was not promoted. "
        who = one_line(" or ".join(asked.by)) or "somebody"
        hours = f"{asked.within_hours:g} hour{'' if asked.within_hours == 1 else 's'}"
        told = f"Approve or reject in Airflow, in the run's task {APPROVAL_TASK}."
        return (
            f"{stays} {model.label} takes its place if {who} approves.",
            f"{other}{model.label} waits to be approved by {who}, for at most {hours}.",
            step(f"{told} Without an answer nothing is promoted.", ask),
        )
    before = f" in place of {run.champion.label}" if run.champion else ""
    serves = f"{model.label} (as_of {model.as_of:%Y-%m-%d}) becomes champion{before}."
    done = f"{challenger.label} is promoted."
    told = f"The pipeline makes {model.label} the champion, unless the champion has changed."
    if by is Promoted.ANCHOR:
        fresh = "It is the accepted recipe made fresh"
        told = f"{told} {fresh}."
        done = f"{model.label}, the accepted recipe on the same rows, is promoted in its place."
    elif judgement.certain_losses:
        done = f"The loss is smaller than the margin that is allowed: {done}"
    if run.champion is not None:
        # The versions are named: what `rollback` alone does depends on what serves by then.
        command = rollback_command(run, run.champion.version, model.version)
        back = ((f"Go back to {run.champion.label}:", command),)
    return serves, done, step(told, ask, *back)


def _after_no_promotion(run: ResolvedRun, judgement: Judgement) -> NextStep:
    stays, challenger = what_serves(run), judgement.comparison.challenger_model.label
    offered: tuple[Offered, ...] = ()
    if run.later_champion or run.champion:
        offered = (ask_who_serves(run),)
    recipe = run.config
    accept = command_at(
        run, f"anchor set --recipe {quoted(recipe.reference)} --reason 'why it is accepted'"
    )
    if judgement.problem:
        offered += (("Name the accepted recipe:", accept),)
    elif run.standing.hold:
        release = f"anchor release --recipe {recipe.recipe_digest[:12]}"
        release = command_at(run, f"{release} --reason 'why it may come back'")
        offered += (("Let the recipe be promoted again:", release),)
    elif waited := _num_waited(run):
        stays = f"{stays} Nothing was promoted in {waited} cycles: somebody has to decide."
        offered += (
            ("Promote this challenger in spite of the verdict:", force_command(run)),
            ("Accept this run's recipe, so that later ones are held to it:", accept),
        )
    if judgement.verdict.decision is Decision.REJECT:
        fixed = ("After a fix of data or code:", new_cycle_command(run))
        return step(f"{stays} {challenger} stays in the registry.", *offered, fixed)
    # The same holdout is not asked again: trying until it agrees would make chance the judge.
    as_of = run.as_of + timedelta(days=run.config.snapshot.holdout_days)
    fresh = f"Once the event log holds every day before {as_of:%Y-%m-%d}, on a fresh holdout:"
    return step(stays, *offered, (fresh, new_cycle_command(run, as_of=as_of)))


def _finding(run: ResolvedRun, judgement: Judgement) -> str:
    """Return what became of the challenger, as the end of a sentence about it."""
    verdict, comparison, losses = judgement.verdict, judgement.comparison, judgement.certain_losses
    is_promoted = verdict.promoted is Promoted.CHALLENGER
    waits = judgement.waits_for_approval(run)
    if is_promoted and (waits or not run.may_promote):
        worse = "is worse, within the margin; it " if losses else ""
        nothing = "may be promoted, and this run promotes nothing"
        return f"{worse}{'is promoted if a person approves' if waits else nothing}"
    if verdict.decision is Decision.REJECT:
        return "is worse and was rejected"
    end = "and is promoted, within the margin" if is_promoted else "and stays out"
    if comparison in losses:
        return f"is worse {end}"
    if losses and losses[0].baseline_kind is BaselineKind.ANCHOR:
        return f"has a worse recipe than the accepted one {end}"
    if losses:
        fresh = losses[0].challenger_model.label
        return f"stays out, and {fresh} in its place is worse, within the margin"
    return "is promoted" if is_promoted else _NOT_PROMOTED


def _percent(change: Interval) -> str:
    low, high = 100 * change.low, 100 * change.high
    return (
        f"{100 * change.value:+.2f} % ({100 * change.confidence:g} %: {low:+.2f} to {high:+.2f} %)"
    )


def _number(comparison: Comparison) -> str:
    """Return the change with interval, sizes and power, or that there is none."""
    rows = f"{comparison.num_users:,} users and {comparison.num_requests:,} requests"
    row = comparison.target
    if row is None or row.relative_change is None:
        return f"{comparison.target_metric} could not be compared on {rows}; the gate fails closed."
    change = row.relative_change
    return (
        f"{comparison.target_metric}: {row.challenger:.4f} against {row.baseline:.4f} "
        f"({comparison.baseline_label}), {100 * change.value:+.2f} % with a "
        f"{100 * change.confidence:g} % interval of {100 * change.low:+.2f} % to "
        f"{100 * change.high:+.2f} %, on {rows}. This holdout shows changes of "
        f"{comparison.detectable_change} and more with 80 % power."
    )


def _most_hurt(comparison: Comparison) -> str:
    """Name the segment whose target metric falls most; '' where none falls."""
    falling = [
        (row.relative_change.value, row.segment, row.relative_change)
        for row in comparison.metrics
        if row.metric == comparison.target_metric
        and row.segment != "all"
        and row.relative_change is not None
        and row.relative_change.value < 0
    ]
    if not falling:
        return ""
    _, segment, change = min(falling, key=lambda each: each[:2])
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
