"""What is known of the champion between two cycles."""

from datetime import date

from pydantic import AwareDatetime

from pipelines.contracts.artifacts import ModelRef
from pipelines.contracts.base import Frozen
from pipelines.contracts.reasons import Interval


class Watch(Frozen):
    """What the monitor has found last: `<workspace>/monitor/<model>/watch.json`."""

    told_at: AwareDatetime
    champion: ModelRef | None = None  # None: nothing serves.
    days: tuple[date, ...] = ()  # On which this champion was measured.
    age_days: float = 0  # Of the champion on the newest of them.
    reference: str = ""  # Label of the model that it was compared with last; '' none.
    measured: Interval | None = None  # Relative change of the target metric, mean of the days.
    expected: Interval | None = None  # What both models' ages let expect; None: not known.
    evidence: float = 0  # Of a loss beyond that; 1 is an alarm.
    calibration: Interval | None = None  # Predicted over observed on the newest day.
    score_shift: float = 0  # Relative change of the mean prediction since the first day.
    pays_after_days: float | None = None  # The cheapest cadence; 0: never; None: unknown.

    @property
    def sentence(self) -> str:
        """What was found, and what is not known, for people."""
        if self.champion is None or not self.days:
            return "No day of the champion was measured yet."
        change, expected = (
            f"{each.value:+.2%} ({each.low:+.2%} to {each.high:+.2%})" if each else "unknown"
            for each in (self.measured, self.expected)
        )
        ratio, against = self.calibration, self.reference or "no other model"
        decay = "" if self.expected else " (give `homefeed decay`)"
        price = "" if self.pays_after_days is not None else "; price unknown (`--value`)"
        level = f"; predicted over observed {ratio.value:.2f}" if ratio else ""
        return (
            f"{self.champion.label}, {self.age_days:.0f} days old on {self.days[-1]}: change "
            f"against {against} {change} on {len(self.days)} day(s), {min(self.evidence, 1):.0%} "
            f"of an alarm's evidence; expected by age: {expected}{decay}{price}{level}."
        )
