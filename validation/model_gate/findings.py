"""What the rules of the model gate find in a comparison, as sentences by what they mean.

Not for deciding (`validation.model_gate.verdict`). Tested in
tests/validation/model_gate/test_limits.py and test_verdict.py.
"""

from dataclasses import dataclass, field

from pipelines.contracts.config import Limit, RelativeLimit
from pipelines.contracts.judgement import AbsenceKind, Comparison, Interval, MetricComparison


@dataclass
class Findings:
    """Sentences about one comparison."""

    comparison: Comparison
    broken: list[str] = field(default_factory=list)  # Surely beyond a bound: REJECT.
    missing: list[str] = field(default_factory=list)  # A needed number is absent: INCONCLUSIVE.
    held_back: list[str] = field(default_factory=list)  # Perhaps beyond a bound: INCONCLUSIVE.
    held: list[str] = field(default_factory=list)  # What holds, and what is worth a note.

    def find(self, metric: str, consequence: str, segment: str = "all") -> MetricComparison | None:
        """Return a metric that a rule needs; note its absence where the comparison lacks it.

        An absent metric breaks the rule where the challenger's own scores are at fault, and is a
        gap otherwise.
        """
        row = self.comparison.find(metric, segment)
        if row is None:
            absent = self.comparison.find_absent(metric, segment)
            reason = f": {absent.reason}" if absent is not None else "."
            is_own_fault = absent is not None and absent.kind is AbsenceKind.NOT_FINITE
            sentences = self.broken if is_own_fault else self.missing
            sentences.append(f"'{metric}' was not computed, {consequence}{reason}")
        return row

    def why_no_change(self, row: MetricComparison) -> str:
        """Return why a metric that has a level has no relative change."""
        absent = self.comparison.find_absent(row.metric, row.segment, "baseline")
        if absent is not None:
            return absent.reason.rstrip(".")
        if row.baseline is None:
            return "the baseline has no such number"
        return "the baseline's is zero in at least one resample of the users"


def name_floor(floor: Limit) -> str:
    """Return a floor as text: 'from 0.8 to 1.25', 'of at least 1' or 'of at most 3'."""
    if floor.maximum is None:
        return f"of at least {floor.minimum:g}"
    if floor.minimum is None:
        return f"of at most {floor.maximum:g}"
    return f"from {floor.minimum:g} to {floor.maximum:g}"


def name_rail(rail: RelativeLimit) -> str:
    """Return a guardrail as text: '[-2.00 %, +2.00 %]'."""
    low = "-inf" if rail.max_decrease is None else percent(-rail.max_decrease)
    high = "inf" if rail.max_increase is None else percent(rail.max_increase)
    return f"[{low}, {high}]"


def quote_level(interval: Interval | None) -> str:
    """Return a level's interval in brackets, ' (95 % interval 0.8000 to 1.1000)', or nothing."""
    if interval is None:
        return ""
    return f" ({interval.confidence * 100:g} % interval {interval.low:.4f} to {interval.high:.4f})"


def quote_change(interval: Interval) -> str:
    """Return '+1.20 % (95 % interval -0.10 % to +2.50 %)'."""
    return (
        f"{percent(interval.value)} ({interval.confidence * 100:g} % interval "
        f"{percent(interval.low)} to {percent(interval.high)})"
    )


def percent(share: float) -> str:
    """Return a signed percentage with two decimals."""
    if share == 0:
        return "0 %"
    return f"{share * 100:+.2f} %"
