"""What is known of decay: what a model loses, the longer ago it was trained.

Two models of one recipe are compared on the same requests: one that was trained some days earlier,
and one that was trained for that very day. The *lag* is the number of days between the two, and so
the age of the older one in service, where a model serves from its as_of on.
"""

from datetime import date
from typing import Literal

from pydantic import AwareDatetime, Field

from pipelines.contracts.base import Artifact, Frozen
from pipelines.contracts.reasons import Interval


def decay_folder(workspace_uri: str, recipe_digest: str) -> str:
    """Return where what is known of a recipe's decay is kept."""
    return f"{workspace_uri.rstrip('/')}/decay/{recipe_digest}"


class DecayPoint(Frozen):
    """What models of one lag lose, over all windows that have such a pair."""

    lag_days: int = Field(ge=1)
    num_pairs: int = Field(ge=1)
    change: Interval  # Relative change of the metric, negative where it is lost; pointwise.
    error: float = Field(ge=0)  # Its standard error.


class DecayCurve(Frozen):
    """The change of one metric by lag, and the band that holds all of it at once."""

    metric: str
    segment: str = "all"
    # Stale weights with fresh actions; fresh weights with stale actions.
    stale: Literal["weights", "actions"] = "weights"
    confidence: float
    critical: float = Field(ge=0)  # The band reaches so many standard errors.
    points: tuple[DecayPoint, ...]  # By lag.

    def expected(self, lag_days: float) -> Interval:
        """Return the change that a lag lets expect, with its band: lines between the points.

        At lag 0 it is 0. Beyond the last point that one holds on, for which nothing was measured.

        Raises:
            ValueError: the curve has no point.
        """
        known = [(0.0, 0.0, 0.0), *((p.lag_days, p.change.value, p.error) for p in self.points)]
        if len(known) == 1 or lag_days < 0:
            raise ValueError(f"lag {lag_days}: a curve of {len(self.points)} points says nothing")
        after = next((n for n, point in enumerate(known) if lag_days < point[0]), len(known) - 1)
        (begin, first, sure), (end, last, unsure) = known[after - 1], known[after]
        share = min((lag_days - begin) / (end - begin), 1.0)
        value = first + share * (last - first)
        half = self.critical * (sure + share * (unsure - sure))
        low, high = value - half, value + half
        return Interval(value=value, low=low, high=high, confidence=self.confidence)


class DayChange(Frozen):
    """What one older model loses on one day against the models of that day's windows."""

    model: AwareDatetime  # Its as_of.
    day: date
    age_days: int  # Since the first day of the model's own window.
    change: float | None  # None: the fresh model got nothing, or a score is not finite.
    error: float | None  # Standard error of the change, from users alone.


class DecayShape(Frozen):
    """How well one shape foretells windows that it was not fitted to."""

    name: str  # 'linear', 'exponential', 'saturating', or 'any': each lag's own mean.
    missed_by: float = Field(ge=0)  # Root of the mean square, of a window's relative change.
    is_as_good: bool  # Not told from the best one.
    parameters: dict[str, float]  # Fitted to all windows.


class CadenceCost(Frozen):
    """What it costs to retrain every so many days."""

    days: float | None  # None: never.
    lost: Interval  # Share of the metric lost a day on average, against retraining all the time.
    kept: Interval  # Share of it kept, against never.
    core_hours: float = Field(ge=0)  # A day.
    cost: Interval | None = None  # A day, in the unit of the value; None: no value was given.
    chance: float | None = None  # That it is the cheapest of all.
    # Share of the metric that warm starts, as often as cost as much, keep beyond it.
    warm: Interval | None = None


class WarmStart(Frozen):
    """Models that begin with the weights of the one before, against ones trained from scratch.

    Each begins with the warm one before, the first with one from scratch, and is trained for one
    pass over its window. Both are of the same day.
    """

    training_s: float  # Processor time of a warm training, median.
    scratch_s: float  # Of one from scratch; 0 where the registry had them all.
    cycle_s: float  # Of one from scratch with its snapshot; 0 likewise.
    # Change of the target metric on the own window, and on the next one; None: too few windows.
    own: Interval | None = None
    later: Interval | None = None

    @property
    def cost_share(self) -> float | None:
        """What a cycle costs if its training starts warm, as a share of one from scratch."""
        saved_s = self.scratch_s - self.training_s
        return 1 - saved_s / self.cycle_s if self.cycle_s else None


class ScheduleArm(Frozen):
    """A schedule as it would have gone on the windows that were measured."""

    name: str  # 'every 28 days', 'warm every 14 days', 'when due'.
    num_trainings: int = Field(ge=0)
    cycle_share: float = Field(default=1.0, gt=0)  # Of the cost of a cycle from scratch, for each.
    lost: Interval  # Share of the metric a day, mean over the windows.


class Replayed(Frozen):
    """What a gate decided in a cycle, and what came of it in the next one's window."""

    as_of: AwareDatetime
    champion: AwareDatetime | None  # as_of of the model that served; None: none did.
    decision: str
    reasons: tuple[str, ...]
    is_promoted: bool
    # Challenger against champion on the next window; None: no champion, or no next window.
    came: Interval | None = None

    @property
    def regret(self) -> Interval | None:
        """What the other choice would have brought more, as a share of the target metric."""
        return self.came and self.came.times(-1.0 if self.is_promoted else 1.0)


class ReplayedGate(Frozen):
    """One setting of the gate over all cycles."""

    name: str
    cycles: tuple[Replayed, ...]

    @property
    def sentence(self) -> str:
        """What it promoted, how often it was wrong, and what the other choices would have kept."""
        regrets = [cycle.regret for cycle in self.cycles if cycle.regret]
        lost = sum(max(each.value, 0.0) for each in regrets) / max(len(regrets), 1)
        return (
            f"{self.name}: promoted {sum(cycle.is_promoted for cycle in self.cycles)} of "
            f"{len(self.cycles)}; of {len(regrets)} choices that were seen through, "
            f"{sum(each.value > 0 for each in regrets)} were wrong by what came, "
            f"{sum(each.low > 0 for each in regrets)} of them surely; the other choices would have "
            f"kept {100 * lost:.2f} % a cycle"
        )


class Backtest(Artifact):
    """What `homefeed backtest` found: `<workspace>/decay/<recipe digest>/backtest.json`."""

    recipe: str
    code_digest: str
    target_metric: str
    measured_at: AwareDatetime
    gates: tuple[ReplayedGate, ...]
    left_out: tuple[str, ...] = ()


class Decay(Artifact):
    """What `homefeed decay` found: `<workspace>/decay/<recipe digest>/decay.json`."""

    recipe: str  # Its reference.
    recipe_digest: str
    code_digest: str
    target_metric: str
    measured_at: AwareDatetime
    as_of: tuple[AwareDatetime, ...]  # Of the models, one for each window.
    user_share: float = Field(default=1.0, gt=0, le=1)  # Of the windows' users; they were scored.
    curves: tuple[DecayCurve, ...]  # That of the target metric over everybody first.
    # Change of each model (row) on each window (column), None where it was not yet made.
    matrix: tuple[tuple[float | None, ...], ...] = ()
    days: tuple[DayChange, ...] = ()  # Of the target metric over everybody.
    shapes: tuple[DecayShape, ...] = ()  # Of the first curve, the best first.
    # Processor time of one snapshot and training, median; None: none was trained here.
    core_hours: float | None = Field(default=None, ge=0)
    value: float | None = Field(default=None, gt=0)  # Of 1 % of the metric a day, in core-hours.
    cadences: tuple[CadenceCost, ...] = ()  # The most frequent first.
    schedules: tuple[ScheduleArm, ...] = ()
    warm: WarmStart | None = None  # None: not asked for.
    left_out: tuple[str, ...] = ()  # Models and windows that could not be used, and why.
