"""What is known of whole cycles: when, what each stage used, what came of it, what served.

For status, the index of all cycles, the local summary and the verdict page. Not for
reading it (`pipelines.cycles`).
"""

from typing import Annotated, Literal, Self

from pydantic import AliasChoices, AwareDatetime, BeforeValidator, Field, model_validator

from pipelines.contracts.base import Frozen
from pipelines.contracts.decay import Decay
from pipelines.contracts.explain import Explanation
from pipelines.contracts.judgement import Decision, Outcome
from pipelines.contracts.monitor import Watch
from pipelines.contracts.reasons import Interval, LinePoint
from pipelines.contracts.run_layout import StageFailure, StageUsage
from pipelines.contracts.time import parse_instant


class StageCost(Frozen):
    """What the attempt of a stage used that published it."""

    stage: str
    wall_s: float = Field(ge=0)
    finished_at: AwareDatetime
    usage: StageUsage | None = None  # None: not measured then.


_Instant = Annotated[AwareDatetime, BeforeValidator(lambda v: parse_instant(str(v), "a time"))]


class Lift(Frozen):
    """What somebody has measured online; times are ISO 8601, UTC where they do not say."""

    metric: str = Field(min_length=1, max_length=80)  # As people call it, such as repin_volume.
    lift: float = Field(ge=-1, allow_inf_nan=False)  # Relative, 0.012 is +1.2 %.
    low: float = Field(ge=-1, allow_inf_nan=False)  # Of its 95 % interval.
    high: float = Field(ge=-1, allow_inf_nan=False)
    start: _Instant = Field(validation_alias=AliasChoices("from", "start"))
    end: _Instant = Field(validation_alias=AliasChoices("to", "end"))
    source: str = Field("", max_length=200)  # Who measured, and how.

    @model_validator(mode="after")
    def _is_interval(self) -> Self:
        if not self.low <= self.lift <= self.high or self.low == self.high:
            raise ValueError(f"low {self.low}, lift {self.lift}, high {self.high} do not ascend")
        return self

    @property
    def change(self) -> Interval:
        """The lift with its interval."""
        return Interval(value=self.lift, low=self.low, high=self.high, confidence=0.95)


class MeasuredLift(Lift):
    """A lift of a model beside the one before it, and what was expected: an entry of the ledger."""

    model: str  # Label of the model that served.
    previous: str  # Label of the one that it was measured against.
    offline: Interval | None = None  # By its cycle's comparison; None: none led to this move.
    estimates: dict[str, Interval] = {}  # From exploration requests, by estimator.


class Agreement(Frozen):
    """How well an offline estimate has foretold what was measured online."""

    estimator: str  # 'comparison', or one of the off-policy ones.
    num: int = Field(ge=1)  # Entries that have both numbers.
    num_covered: int  # Of them, those where estimate and measurement agree within their intervals.
    num_clear: int  # Entries whose lift is surely not zero.
    num_signs: int  # Of these, those whose estimate has the same sign.
    bias: Interval | None  # Mean of estimate minus lift; None: one entry has no spread.

    @property
    def sentence(self) -> str:
        """What was found, for people."""
        b = self.bias
        told = f"; too high by {b.value:+.2%} ({b.low:+.2%} to {b.high:+.2%})" if b else ""
        return (
            f"{self.estimator}: of {self.num_clear} lifts that are surely not zero it had the sign "
            f"of {self.num_signs}; it agreed with {self.num_covered} of {self.num}{told}"
        )


class CycleRecord(Frozen):
    """What a verdict page says of its cycle beside the verdict."""

    began_at: AwareDatetime | None = None  # When it was resolved.
    trained_at: AwareDatetime | None = None  # When all was trained that is judged.
    is_void: bool = False  # The comparison counts for nothing.
    index_href: str = ""  # Index of all cycles, from the page; ''.
    # What a change like this one has meant online, by the ledger, in how many cases; None: too few.
    meant: tuple[Interval, int] | None = None
    explanation: Explanation | None = None  # Why the challenger lost; None: nobody asked.


class CycleFacts(Frozen):
    """What became of one cycle so far: facts of its manifests and of its newest failure."""

    run_id: str
    run_uri: str
    trigger: str = ""  # What began it: a run of Airflow, or a key.
    as_of: AwareDatetime | None = None  # None: its record is not read.
    began_at: AwareDatetime | None = None  # When it was resolved.
    state: Literal["judged", "data gate failed", "broken", "not ended", "not readable"]
    outcome: Outcome | None = None  # What people are told of a verdict.
    page_uri: str = ""  # The verdict page; '' where none was judged.
    is_void: bool = False  # The comparison counts for nothing.
    line: tuple[LinePoint, ...] = ()  # Champions against what never changes, up to this cycle.
    # What the champion of then showed first, by metric: popular and new pins, and how unevenly.
    shown_first: dict[str, float] = {}
    promoted: str | None = None  # Label of the model that it promoted; '' none, None: not yet.
    failure: StageFailure | None = None  # Why it broke.
    next_stage: str = ""  # First stage that has not ended; '' if none.
    problem: str = ""  # Why a record of it cannot be read; ''.
    airflow_url: str = ""  # Its page in Airflow; '' if not known.
    costs: tuple[StageCost, ...] = ()  # Of the stages that have ended.

    @property
    def broke_at(self) -> AwareDatetime | None:
        """When `resolve_run` broke; None where the cycle was resolved or did not break."""
        return self.failure.occurred_at if self.failure and self.began_at is None else None

    @property
    def word(self) -> str:
        """The cycle's outcome in a word: its verdict where it was judged, else its state."""
        if self.outcome is None or self.state != "judged":
            return self.state
        if self.is_void:
            return "void"
        # The cycle was not allowed to promote, or nobody approved.
        is_kept_back = self.promoted == "" and self.outcome.decision == Decision.PROMOTE
        return "not promoted" if is_kept_back else self.outcome.decision

    @property
    def happened(self) -> str:
        """What came of the cycle, a sentence or two for people."""
        if self.problem:
            return self.problem
        broke = self.failure.message if self.failure else ""
        if self.failure and self.state != "data gate failed":
            broke = f"{self.failure.stage} broke: {broke}"
        if self.outcome is not None:
            return f"{self.outcome.title}{f'. Then {broke}' if broke else ''}"
        return broke or f"{self.next_stage} has not ended."


class ServingSpan(Frozen):
    """A model's time as champion, which ends where that of the next one begins."""

    model: str
    as_of: AwareDatetime
    since: AwareDatetime
    kind: str  # 'promotion', 'rollback', 'forced' or 'outside'.
    reason: str


class IndexFacts(Frozen):
    """All that the index of a workspace tells."""

    workspace_uri: str  # Links to pages below it are relative.
    registered_model: str
    cycles: tuple[CycleFacts, ...]  # The newest first.
    num_cycles: int = Field(ge=0)  # All that the workspace holds.
    champions: tuple[ServingSpan, ...]  # The newest first.
    problem: str = ""  # What of the history cannot be read; ''.
    broken: tuple[str, ...] = ()  # What has broken cycles and is not seen mended, oldest first.
    # Of the metric that most entries have, the newest first, and how well it was foretold.
    ledger: tuple[MeasuredLift, ...] = ()
    accounts: tuple[Agreement, ...] = ()
    decay: Decay | None = None  # Of the accepted recipe; None: not measured.
    watch: Watch | None = None  # What the monitor found last; None: it never ran.
    next_due: AwareDatetime | None = None  # Next date of the schedule; None: not asked.
    # Of an hour of a core and of a GPU; 0: not known.
    prices: tuple[float, float] = (0.0, 0.0)
