"""The artifacts of judging: facts, verdict, what people are told and asked, and what became of it.

Facts are a `Comparison`, a `SelfTest` and a `ServingCheck`; the `Verdict` is what may happen next,
the `Outcome` its words; a `Promotion` is what happened. An approval lies in the run's folder:

    <run>/promote_challenger/approval.json    an Approval, written when the question is closed

Not for the rules (`validation.model_gate.verdict`), for composing (`pipelines.alerts.outcomes`) nor
for asking (`pipelines.orchestration.approval`).
"""

from enum import StrEnum
from typing import Literal, TypeVar

from pydantic import AwareDatetime, Field

from pipelines.contracts.alert import NextStep
from pipelines.contracts.artifacts import ModelRef, ResolvedRun
from pipelines.contracts.base import Artifact, Frozen, digest_of
from pipelines.contracts.config import ModelGateConfig
from pipelines.contracts.reasons import (
    AbsenceKind,
    AbsentMetric,
    BaselineFacts,
    BaselineKind,
    HeadFacts,
    Interval,
    LinePoint,
    MetricComparison,
    PooledChange,
    RankedRequest,
    Reason,
    ReliabilityBin,
    Spent,
)
from pipelines.contracts.time import Window

ENDS = ("promoted", "anchor_promoted", "held_back", "rejected", "inconclusive")
"""What a cycle comes to, in Airflow's grid a task each, of which one is green. Held back is what
the verdict would promote, and a person or the run's options do not."""
MOST_SKEWED = 0.002
"""Share of served requests whose score may differ from what the snapshot gives."""
Direction = Literal["better", "worse", "cannot tell", "not compared"]


class Outcome(Frozen):
    """A cycle's outcome in the words that people read."""

    decision: Literal["PROMOTE", "REJECT", "INCONCLUSIVE"]
    title: str  # One line: what became of which model, and the number.
    serves: str  # Which model serves, read when this was told; '' where that stands elsewhere.
    metric: str  # Name of the target metric.
    direction: Direction  # What the interval of its change says.
    change: Interval | None  # Of the target metric, relative; None: not known.
    number: str  # The change with its interval, sizes and power, in sentences.
    why: str  # The reason that decided, one sentence.
    reasons: tuple[str, ...]  # All reasons; the first is `why`.
    most_hurt: str = ""  # Segments and guardrails that are surely worse, or the lowest segments.
    warnings: tuple[str, ...] = ()  # What the data gate warned of in this cycle, a sentence each.
    changed: str = ""  # What is new against the champion.
    done: str  # What the pipeline does, or did, with the models.
    next_step: NextStep
    links: tuple[tuple[str, str], ...]  # (label, URI) pairs.

    def lines(self) -> tuple[str, ...]:
        """Return the whole outcome as lines of text, what serves first."""
        told = [self.serves, f"{self.decision}: {self.title}", self.number, *self.reasons]
        told += [self.most_hurt, *self.warnings, self.done, self.next_step.sentence]
        for purpose, command in self.next_step.commands:
            told += [purpose, f"  {command}"]
        return (*filter(None, told), *(f"{label}: {uri}" for label, uri in self.links))


class Approval(Frozen):
    """What became of the question whether a verdict may be carried out."""

    answer: Literal["approved", "rejected", "no answer"]
    by: str  # Who answered, as Airflow knows them; '' where nobody did.
    at: AwareDatetime  # When they answered, or the question was closed.
    model: str  # Label of the model that was to serve.
    ruling_digest: str  # Of the judgement that was asked about.
    comment: str = ""  # What they said to it, in one line.

    @property
    def is_given(self) -> bool:
        """Whether the model may serve."""
        return self.answer == "approved"

    @property
    def sentence(self) -> str:
        """What became of it, for people."""
        when = f"{self.at:%Y-%m-%d %H:%M} UTC"
        if self.answer == "no answer":
            return f"Nobody approved {self.model} in time, which was until {when}."
        said = f', saying: "{self.comment}"' if self.comment else ""
        return f"{self.by} {self.answer} the promotion of {self.model} at {when}{said}."


class Comparison(Frozen):
    """Facts of a comparison. Permission is `Verdict`."""

    holdout_digest: str  # Digest of the (request, pin, label) rows scored.
    holdout: Window
    baseline_kind: BaselineKind
    baseline_name: str = ""  # Of a first cycle's baseline, as in `BaselineFacts`; else ''.
    challenger_model: ModelRef
    baseline_model: ModelRef | None
    num_users: int
    num_requests: int
    num_examples: int
    segment_users: dict[str, int]  # Users per segment.
    metrics: tuple[MetricComparison, ...]
    absent: tuple[AbsentMetric, ...] = ()  # What could not be computed; it has no row in metrics.
    # Name of the metric that decides: model_gate.target_metric of the run.
    target_metric: str = ModelGateConfig.model_fields["target_metric"].default
    # Relative change of the target metric that 80 % power would see here; None where that change
    # does not exist; see `why_no_change`.
    smallest_detectable_change: float | None
    num_days: int  # With a request; of one alone the interval knows nothing of days.
    # holdout_digest of the baseline; None: unknown, not promoted.
    baseline_holdout_digest: str | None = None
    # Both sides rank every example alike; None: not checked, not promoted.
    are_scores_identical: bool | None = None
    reliability: tuple[ReliabilityBin, ...] = ()  # Calibration plot.
    # Drawn by a hash of their ids; () where a score is not finite, and in records of before.
    requests: tuple[RankedRequest, ...] = ()
    heads: tuple[HeadFacts, ...] = ()  # The challenger's heads, whatever their weight.
    differences: tuple[Reason, ...] = ()  # Where the two recipes differ.
    seen: tuple[Reason, ...] = ()  # Why the holdout is none for a side: it was trained on its rows.
    pooled: tuple[PooledChange, ...] = ()  # Changes that decide, with their standard errors.
    # Models that were judged on requests of this holdout since the champion moved, this included.
    num_tries: int = Field(1, ge=1)
    # The largest plausible change of the target metric, and what earlier challengers changed of it;
    # None: not known, and a person is not asked.
    plausible_lift: float | None = None
    past_lifts: tuple[float, ...] = ()
    # Of guarded metrics, with this challenger's recipe; () where its recipe is the accepted one.
    spent: tuple[Spent, ...] = ()
    # Of the holdout, where `num_users` of them were drawn by a hash of their ids; None: all of them
    # were scored.
    num_users_in_all: int | None = None

    @property
    def num_drawn(self) -> int | None:
        """How many users were drawn; None: all were scored."""
        return None if self.num_users_in_all is None else self.num_users

    @property
    def share_scored(self) -> float:
        """Share of the holdout's users that were scored."""
        return self.num_users / (self.num_users_in_all or self.num_users or 1)

    @property
    def size(self) -> str:
        """How much was looked at: '50 users and 100 requests'."""
        drawn = ""
        if self.num_users_in_all is not None:
            drawn = f" (a sample, {self.share_scored:.2%} of {self.num_users_in_all:,})"
        return f"{self.num_users:,} users{drawn} and {self.num_requests:,} requests"

    @property
    def power(self) -> str:
        """How much was looked at, and what could be seen, a sentence."""
        return (
            f"On {self.size}, changes of {self.detectable_change} and more are seen four times in "
            f"five."
        )

    @property
    def is_first_cycle(self) -> bool:
        """Whether no model serves, so that the baseline is one of the simple ones."""
        return self.baseline_kind not in (BaselineKind.CHAMPION, BaselineKind.ANCHOR)

    @property
    def target(self) -> MetricComparison | None:
        """The target metric over all users, or None if it was not computed."""
        return self.find(self.target_metric)

    @property
    def target_change(self) -> Interval | None:
        """The relative change of the target metric over all users, or None if it has none."""
        return self.target.relative_change if self.target is not None else None

    @property
    def is_loss_certain(self) -> bool:
        """Whether the interval of the target metric's change lies wholly below zero."""
        return self.target_change is not None and self.target_change.high < 0

    @property
    def detectable_change(self) -> str:
        """The smallest detectable change as text: '2.00 %', or 'an unknown change'."""
        change = self.smallest_detectable_change
        return "an unknown change" if change is None else f"{100 * change:.2f} %"

    @property
    def baseline_label(self) -> str:
        """The baseline for people: 'champion ranker v3', 'the ranking by newest first', ..."""
        if self.baseline_model is None:
            if self.baseline_kind is BaselineKind.REGRESSION:
                return "the logistic regression"
            return f"the ranking by {self.baseline_name or 'popularity'}"
        kind = "the fresh anchor" if self.baseline_kind is BaselineKind.ANCHOR else "champion"
        return f"{kind} {self.baseline_model.label}"

    def find_pooled(self, metric: str, segment: str = "all") -> PooledChange | None:
        """Return a change with its standard errors, or None if it was not pooled."""
        return _first(self.pooled, metric=metric, segment=segment)

    def find(self, metric: str, segment: str = "all") -> MetricComparison | None:
        """Return one comparison, or None if it was not computed."""
        return _first(self.metrics, metric=metric, segment=segment)

    def find_absent(
        self, metric: str, segment: str = "all", side: str = "challenger"
    ) -> AbsentMetric | None:
        """Return why one side's number could not be computed, or None if nothing is recorded."""
        return _first(self.absent, metric=metric, segment=segment, side=side)

    def why_no_change(self, row: MetricComparison) -> AbsentMetric:
        """Return why a metric that has a level has no relative change."""
        missing = row.baseline is None
        kind = AbsenceKind.NOT_OF_BASELINE if missing else AbsenceKind.ZERO_BASELINE
        return self.find_absent(row.metric, row.segment, "baseline") or AbsentMetric(
            metric=row.metric, segment=row.segment, side="baseline", kind=kind
        )


Row = TypeVar("Row")


def _first(rows: tuple[Row, ...], **wanted: str) -> Row | None:
    """Return the first row that has these values, or None."""
    items = wanted.items()
    return next((row for row in rows if all(getattr(row, k) == v for k, v in items)), None)


class SelfTest(Frozen):
    """What the gate found when it judged models whose right verdict is known."""

    findings: tuple[Reason, ...] = ()  # What came out as it must.
    doubts: tuple[Reason, ...] = ()  # What stands against a promotion.


class Decision(StrEnum):
    """What may happen next."""

    PROMOTE = "PROMOTE"
    REJECT = "REJECT"
    INCONCLUSIVE = "INCONCLUSIVE"


class Promoted(StrEnum):
    """Which model a cycle promotes."""

    CHALLENGER = "challenger"
    ANCHOR = "anchor"  # The last accepted recipe, trained in this cycle.
    NONE = "none"


class Verdict(Frozen):
    """Permission, with its reasons."""

    decision: Decision  # On the challenger.
    promoted: Promoted  # Which model takes the champion's place.
    becomes_anchor: bool = False  # The challenger's recipe becomes the accepted one.
    grounds: tuple[Reason, ...] = Field(min_length=1)  # What decided comes first.

    @property
    def reasons(self) -> tuple[str, ...]:
        """The grounds for people, in full sentences."""
        return tuple(reason.sentence for reason in self.grounds)

    @property
    def repeatable(self) -> tuple[Reason, ...]:
        """The grounds that judging again finds again: without what a serving check measured."""
        return tuple(kept for reason in self.grounds if (kept := reason.repeatable))


class ServingCheck(Frozen):
    """Whether the challenger's bundle would serve, measured in a process of its own."""

    golden_difference: float  # Largest change of a golden probability.
    latency_p50_ms: float  # Median time of one request, ms.
    latency_p99_ms: float  # Slowest of a hundred calls, ms; the machine's other work is in it.
    # The most processor time of a hundred calls, ms; None: a check of before did not measure it.
    processor_p99_ms: float | None = None
    # Of a call's time over that of the champion's beside it, the median; None: not measured.
    wall_ratio: float | None = None
    peak_memory_mib: float  # Peak of the process, MiB.
    num_candidates: int  # Candidates of the timed request.
    num_calls: int  # Timed calls.
    score_spread: float  # Standard deviation of the first head's scores.
    saturated_share: float  # Share of scores within 1e-6 of 0 or 1.
    problems: tuple[Reason, ...] = ()  # What is beyond its limit.

    @property
    def figures(self) -> Reason:
        """The figures that every verdict quotes."""
        told_elsewhere = {"score_spread", "saturated_share", "wall_ratio", "problems"}
        facts = self.model_dump(exclude=told_elsewhere)
        return Reason.of("serving_figures", **facts)


class Skew(Frozen):
    """How the champion's served scores differ from those that its snapshot's requests give."""

    num_requests: int = Field(ge=1)  # Served by it, of the holdout, drawn by a hash.
    num_differ: int = Field(ge=0)  # Of them, with a score that differs by more than noise.
    causes: dict[str, int]  # Requests by what differs: actions, embeddings, features, ages, model.

    @property
    def is_fault(self) -> bool:
        """Whether people must look."""
        return self.num_differ > MOST_SKEWED * self.num_requests

    @property
    def sentence(self) -> str:
        """What was found, for people."""
        found = ", ".join(f"{name} {num:,}" for name, num in sorted(self.causes.items()))
        return (
            f"Of {self.num_requests:,} requests that the champion answered, {self.num_differ:,} "
            f"got another score than the event log's view of them gives"
            f"{f' (what differs: {found})' if found else ''}; expected at most "
            f"{100 * MOST_SKEWED:g} %."
        )


class OffPolicyEstimate(Frozen):
    """What exploration requests say of both sides, by one of `validation.model_gate.off_policy`."""

    estimator: str
    challenger: float | None  # Actions per request; None: see `note`.
    baseline: float | None
    # Challenger against baseline; None where a side has no value.
    relative_change: Interval | None
    num_requests: int = Field(ge=0)  # Exploration requests of the holdout.
    # How many even observations the challenger's estimate is worth.
    effective_size: float = Field(ge=0)
    note: str = ""  # Why there is no estimate.


class OperatingPoint(Frozen):
    """What becomes of a recipe that truly differs from the accepted one by a known share."""

    true_change: float  # Of the target metric, 0.01 is +1 %.
    promoted: float = Field(ge=0, le=1)  # Share of cycles that promote it.
    rejected: float = Field(ge=0, le=1)  # Share of cycles that reject it.
    # Mean over a year of what serves, against the accepted recipe always fresh.
    year_quality: float


class AnchorFacts(Frozen):
    """What is known of the fresh anchor: the accepted recipe, trained on this cycle's rows."""

    model: ModelRef
    recipe: Comparison  # Challenger against it: what the recipe is worth.
    freshness: Comparison  # It against the champion: what fresh data is worth.
    self_test: SelfTest  # Of the gate, on its scores.
    serving: ServingCheck


class Judgement(Artifact):
    """What `compare_with_champion` publishes."""

    comparison: Comparison
    self_test: SelfTest
    serving: ServingCheck
    anchor: AnchorFacts | None = None  # None where none was trained; `anchor_note` says why.
    anchor_note: str = ""  # Why an anchor was trained or not.
    # Of the champion; None where nothing in the holdout was logged with its score.
    skew: Skew | None = None
    problem: str = ""  # Why no recipe is accepted, or it cannot be made; '' otherwise.
    hold: str = ""  # Why the challenger's recipe is not promoted before a person says so.
    baselines: tuple[BaselineFacts, ...] = ()  # Of every cycle, the best first.
    # From exploration requests; () where the holdout has none.
    estimates: tuple[OffPolicyEstimate, ...] = ()
    # What this gate can see; () where the change has no error.
    operating_curve: tuple[OperatingPoint, ...] = ()
    # Champions against what never changes, the challenger last; see `long_line`.
    line: tuple[LinePoint, ...] = ()
    verdict: Verdict  # What `decide` made of the three above, together.
    outcome: Outcome | None = None  # What people are told of it; None until that is known.
    report_uri: str  # Self-contained HTML verdict page.

    @property
    def certain_losses(self) -> tuple[Comparison, ...]:
        """The comparisons whose change lies wholly below zero, of what concerns the decision.

        The fresh anchor's against the champion concerns it where the anchor is promoted.
        """
        found = [self.comparison, *((self.anchor.recipe,) if self.anchor else ())]
        if self.anchor and self.verdict.promoted is Promoted.ANCHOR:
            found.append(self.anchor.freshness)
        return tuple(comparison for comparison in found if comparison.is_loss_certain)

    @property
    def ruling_digest(self) -> str:
        """Digest of what was found and ruled.

        Judging again finds and rules the same. Only the serving check measures anew, so that its
        figures are left out. Requests that are shown decide nothing, and older records have none.
        """
        kept = [reason.model_dump(mode="json") for reason in self.verdict.repeatable]
        verdict = self.verdict.model_dump(mode="json", exclude={"grounds"})
        found = self.comparison.model_dump(mode="json", exclude={"requests"})
        return digest_of([found, verdict, kept])

    @property
    def promoted_model(self) -> ModelRef | None:
        """The model that the verdict promotes, or None."""
        if self.verdict.promoted is Promoted.CHALLENGER:
            return self.comparison.challenger_model
        is_anchor = self.verdict.promoted is Promoted.ANCHOR
        return self.anchor.model if is_anchor and self.anchor else None

    def waits_for_approval(self, run: ResolvedRun) -> bool:
        """Whether a person is asked: something is to be promoted, and the recipe wants it."""
        asks = run.config.promotion.approval is not None
        return asks and run.may_promote and self.promoted_model is not None

    def places(self) -> dict[str, int | None]:
        """The verdict page."""
        return {self.report_uri: None}


class Promotion(Artifact):
    """What `promote_challenger` did. It owns no file: promoting again could undo a rollback."""

    is_promoted: bool
    champion_after: ModelRef | None
    reason: str  # One sentence.
    approval: Approval | None = None  # A person's answer; None where nobody was asked.


def end_of(judgement: Judgement, promotion: Promotion) -> str:
    """Return which of `ENDS` a cycle has come to."""
    if promotion.is_promoted:
        is_anchor = judgement.verdict.promoted is Promoted.ANCHOR
        return "anchor_promoted" if is_anchor else "promoted"
    if judgement.verdict.promoted is not Promoted.NONE:
        return "held_back"
    return "rejected" if judgement.verdict.decision is Decision.REJECT else "inconclusive"
