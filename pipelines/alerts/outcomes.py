"""The outcome of a cycle in words: one function, whose value every place shows as it is.

Not for what is told of a cycle that was not judged (`pipelines.alerts.compose`), nor for what to do
next (`pipelines.alerts.next_step`).
"""

from pipelines.alerts.links import Links, data_links, links_of
from pipelines.alerts.next_step import after_verdict, ask_who_serves, step, what_serves
from pipelines.contracts.artifacts import DataReport, ExpectationOutcome, ResolvedRun
from pipelines.contracts.judged.outcome import Direction, Outcome
from pipelines.contracts.judgement import (
    BaselineKind,
    Comparison,
    Decision,
    Interval,
    Judgement,
    Promoted,
)
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
    outcome = Outcome(
        decision=verdict.decision.value,
        title=f"{comparison.challenger_model.label} {finding}",
        serves=_will_serve(run, judgement),
        metric=comparison.target_metric,
        direction=direction,
        change=change,
        number=f"{_VOID.capitalize()}." if is_void else _number(comparison),
        why=reasons[0],
        reasons=reasons,
        most_hurt="" if is_void else _most_hurt(comparison),
        warnings=tuple(map(_warning, report.warnings)) if report else (),
        done=_done(run, judgement),
        next_step=after_verdict(run, judgement),
        links=(
            ("Verdict page", judgement.report_uri),
            *in_mlflow,
            *links_of(run, settings),
            *data_links(report),
        ),
    )
    return _waiting(outcome, run, judgement) if judgement.waits_for_approval(run) else outcome


def kept_outcome(
    run: ResolvedRun, judgement: Judgement, settings: Settings, report: DataReport | None = None
) -> Outcome:
    """Return the outcome that was made when a cycle was judged; for older cycles it is made now."""
    return judgement.outcome or outcome_of(run, judgement, report, settings)


def direction_of(change: Interval | None) -> Direction:
    """Return what an interval of a change says about its direction."""
    if change is None:
        return "not compared"
    if change.high < 0:
        return "worse"
    return "better" if change.low > 0 else "cannot tell"


def _waiting(outcome: Outcome, run: ResolvedRun, judgement: Judgement) -> Outcome:
    """Return the outcome of a cycle whose promotion waits for a person."""
    model, asked = judgement.promoted_model, run.config.promotion.approval
    assert model is not None and asked is not None, "somebody is asked"
    challenger = judgement.comparison.challenger_model
    other = "" if model == challenger else f"{challenger.label} was not promoted. "
    who = one_line(" or ".join(asked.by)) or "somebody"
    hours = f"{asked.within_hours:g} hour{'' if asked.within_hours == 1 else 's'}"
    told = {
        "serves": f"{what_serves(run)} {model.label} takes its place if {who} approves.",
        "done": f"{other}{model.label} waits to be approved by {who}, for at most {hours}.",
        "next_step": step(
            f"Approve or reject in Airflow, in the run's task {APPROVAL_TASK}. Without an answer "
            f"nothing is promoted.",
            ask_who_serves(run),
        ),
    }
    return outcome.model_copy(update=told)


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


def _will_serve(run: ResolvedRun, judgement: Judgement) -> str:
    """Say which model serves once the pipeline has done its part."""
    promoted = judgement.promoted_model
    if promoted is None or not run.may_promote:
        return what_serves(run)
    before = f" in place of {run.champion.label}" if run.champion else ""
    return f"{promoted.label} (as_of {promoted.as_of:%Y-%m-%d}) becomes champion{before}."


def _done(run: ResolvedRun, judgement: Judgement) -> str:
    promoted, label = judgement.verdict.promoted, judgement.comparison.challenger_model.label
    if promoted is Promoted.CHALLENGER and run.may_promote:
        if judgement.certain_losses:
            return f"The loss is smaller than the margin that is allowed: {label} is promoted."
        return f"{label} is promoted."
    if promoted is Promoted.ANCHOR and run.may_promote and judgement.anchor:
        return (
            f"{label} was not promoted. {judgement.anchor.model.label}, the accepted recipe "
            f"trained on the same rows, is promoted in its place."
        )
    return f"{label} was not promoted. {what_serves(run)}"
