"""The outcome of a cycle in words: one function, whose value every place shows as it is.

Not for what is told of a cycle that was not judged (`pipelines.alerts.compose`), nor for what to do
next (`pipelines.alerts.next_step`). Tested in tests/pipelines/alerts/test_outcomes.py.
"""

from pipelines.alerts.approvals import waiting
from pipelines.alerts.links import Links, data_links, links_of
from pipelines.alerts.next_step import after_verdict, what_serves
from pipelines.contracts.artifacts import DataReport, ExpectationOutcome, ResolvedRun
from pipelines.contracts.judged.outcome import Direction, Outcome
from pipelines.contracts.judgement import (
    BaselineKind,
    Comparison,
    Decision,
    Interval,
    Judgement,
    MetricComparison,
    Promoted,
)
from pipelines.plain_text import one_line
from pipelines.settings import Settings

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
    row = comparison.target
    change = row.relative_change if row is not None and not is_void else None
    reasons = tuple(map(one_line, verdict.reasons))
    outcome = Outcome(
        decision=verdict.decision.value,
        title=(
            f"{comparison.challenger_model.label} "
            f"{_without_numbers(verdict.decision) if is_void else finding_of(run, judgement)}, "
            f"{_VOID if is_void else _short(comparison, change)}"
        ),
        serves=_will_serve(run, judgement),
        metric=comparison.target_metric,
        direction=direction_of(change),
        change=change,
        number=f"{_VOID[0].upper()}{_VOID[1:]}." if is_void else _number(comparison),
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
    if judgement.waits_for_approval(run):
        return outcome.model_copy(update=waiting(run, judgement))
    return outcome


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


def finding_of(run: ResolvedRun, judgement: Judgement) -> str:
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
    if losses and comparison not in losses:
        return _less_than(losses[0], is_promoted)
    if losses:
        return (
            f"is worse {'and is promoted, within the margin' if is_promoted else 'and stays out'}"
        )
    if not is_promoted:
        return _NOT_PROMOTED
    return "is promoted"


def _without_numbers(decision: Decision) -> str:
    """Return what became of the challenger where nothing follows from the comparison."""
    # Also then it is rejected where it could not serve.
    return "was rejected" if decision is Decision.REJECT else _NOT_PROMOTED


def _less_than(loss: Comparison, is_promoted: bool) -> str:
    """Return the finding where the loss is not the challenger's against the champion."""
    if loss.baseline_kind is BaselineKind.ANCHOR:
        end = "and is promoted, within the margin" if is_promoted else "and stays out"
        return f"has a worse recipe than the accepted one {end}"
    return f"stays out, and {loss.challenger_model.label} in its place is worse, within the margin"


def _short(comparison: Comparison, change: Interval | None) -> str:
    """Return number and direction, for a subject line."""
    said = direction_of(change)
    if change is None:
        return f"{comparison.target_metric} {said}"
    return f"{comparison.target_metric} {said}: {_percent(change)}"


def _percent(change: Interval) -> str:
    return (
        f"{100 * change.value:+.2f} % ({100 * change.confidence:g} %: {100 * change.low:+.2f} to "
        f"{100 * change.high:+.2f} %)"
    )


def _number(comparison: Comparison) -> str:
    row = comparison.target
    rows = f"{comparison.num_users:,} users and {comparison.num_requests:,} requests"
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

    def of(row: MetricComparison) -> Interval | None:
        is_asked = row.metric == comparison.target_metric and row.segment != "all"
        return row.relative_change if is_asked else None

    falling = [
        (change.value, row.segment, change)
        for row in comparison.metrics
        if (change := of(row)) is not None and change.value < 0
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
