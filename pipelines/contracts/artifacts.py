"""Artifacts: what a stage takes and gives. Frozen, JSON-able, and silent about how they were made.

On disk a run is a folder:

    <workspace>/runs/<run_id>/<stage>/manifest.json    a StageRecord, written last
    <workspace>/runs/<run_id>/<stage>/<attempt>/...    the stage's other files
    <workspace>/runs/<run_id>/<stage>/failure.json     the last failure, removed by success
    <workspace>/snapshots/<digest>/...                 shared by every run that needs it
    <workspace>/history/*.json                         who was serving when, append-only
"""

from enum import StrEnum
from typing import Any, Literal

from pydantic import AwareDatetime, Field, model_validator

from pipelines.contracts.base import Frozen
from pipelines.contracts.config import FeatureConfig, ModelGateConfig, RunConfig
from pipelines.contracts.time import to_ms

STAGES = (
    "resolve_run",
    "build_snapshot",
    "check_snapshot",
    "train_challenger",
    "compare_with_champion",
    "promote_challenger",
    "alert",
)


class ModelRef(Frozen):
    """A registered model version, pinned: never an alias."""

    name: str = Field(description="Registered model name.")
    version: str = Field(description="Registry version number.")
    mlflow_run_id: str = Field(description="Run that logged it.")
    as_of: AwareDatetime = Field(description="as_of of the cycle that trained it (UTC).")
    bundle_digest: str = Field(description="sha256 over the bundle's files.")
    snapshot_digest: str = Field(description="Digest of the snapshot it was trained on.")

    @property
    def label(self) -> str:
        """Return 'name v3', for people."""
        return f"{self.name} v{self.version}"


class ResolvedRun(Frozen):
    """What `resolve_run` fixed; every later stage is a pure function of this."""

    run_id: str = Field(description="Folder name under <workspace>/runs, unique per cycle.")
    run_uri: str = Field(description="URI of the run folder.")
    as_of: AwareDatetime = Field(description="Only rows known before this UTC midnight count.")
    config: RunConfig
    code_version: str = Field(description="Git commit, else the package version.")
    event_log_uri: str
    workspace_uri: str
    tracking_uri: str = Field(description="MLflow server (no credentials in it).")
    experiment: str = Field(description="MLflow experiment name.")
    registered_model: str = Field(description="MLflow registered model name.")
    champion: ModelRef | None = Field(description="Pinned at the start; None in the first cycle.")
    last_accepted_snapshot_uri: str | None = Field(
        description="Snapshot that the data gate last accepted, for shift; None in the first cycle."
    )
    may_promote: bool = Field(description="False in a backfill or when the operator said no.")
    num_devices: int = Field(ge=1, description="Training processes.")
    accelerator: Literal["cpu", "gpu"] = "cpu"
    trigger: str = Field(description="Who asked: an Airflow run id, or 'command line'.")


class Window(Frozen):
    """A half-open interval of time [start, end)."""

    start: AwareDatetime
    end: AwareDatetime

    @property
    def start_ms(self) -> int:
        """Start in milliseconds since the epoch."""
        return to_ms(self.start)

    @property
    def end_ms(self) -> int:
        """End in milliseconds since the epoch."""
        return to_ms(self.end)


class FileDigest(Frozen):
    """One file of an artifact folder."""

    path: str = Field(description="Relative to the artifact's URI, with forward slashes.")
    sha256: str
    num_bytes: int = Field(ge=0)


class ShardStats(Frozen):
    """Counts of one shard."""

    name: str = Field(description="Folder name, e.g. 'shard-00003'.")
    num_users: int
    num_actions: int
    num_requests: int
    num_examples: int


class Snapshot(Frozen):
    """An immutable, content-addressed training and holdout set.

    <uri>/pins.arrow                        PIN_ROWS + categorical codes, all shards' pins
    <uri>/shard-00000/timeline.arrow        TIMELINE
    <uri>/shard-00000/requests.arrow        REQUESTS
    <uri>/shard-00000/examples.arrow        EXAMPLE_KEYS + features + labels
    <uri>/shard-00000/users.arrow           USER_ROWS + categorical codes
    <uri>/manifest.json                     this value, written last
    """

    uri: str
    digest: str = Field(description="sha256 over the files' digests: the content's address.")
    as_of: AwareDatetime
    training: Window
    holdout: Window
    embedding_version: str
    features: FeatureConfig = Field(description="What the codes and label columns mean.")
    shards: tuple[ShardStats, ...]
    num_pins: int
    files: tuple[FileDigest, ...]
    num_duplicate_impressions: int = Field(description="Dropped: same request and pin again.")
    num_immature_impressions: int = Field(description="Left out: younger than the label window.")

    @property
    def num_requests(self) -> int:
        """Requests over all shards, both windows."""
        return sum(shard.num_requests for shard in self.shards)

    @property
    def num_examples(self) -> int:
        """Examples over all shards, both windows."""
        return sum(shard.num_examples for shard in self.shards)


class Severity(StrEnum):
    """What a failed expectation means."""

    CRITICAL = "critical"
    WARNING = "warning"


class ExpectationOutcome(Frozen):
    """One expectation of the data gate, judged."""

    name: str = Field(description="Short id, e.g. 'target_label_rate'.")
    description: str = Field(description="A sentence for people.")
    severity: Severity
    is_met: bool
    observed: str = Field(description="Value found, as text.")
    expected: str = Field(description="Value expected, as text.")
    partitions: tuple[str, ...] = Field(default=(), description="Offending shards or days.")


class DataReport(Frozen):
    """Outcome of the data gate."""

    snapshot_digest: str
    outcomes: tuple[ExpectationOutcome, ...]
    docs_uri: str = Field(description="Entry page of the Data Docs.")
    reference_digest: str | None = Field(description="Snapshot the shift was judged against.")

    @property
    def is_accepted(self) -> bool:
        """True when no critical expectation failed."""
        return all(o.is_met for o in self.outcomes if o.severity is Severity.CRITICAL)

    @property
    def failures(self) -> tuple[ExpectationOutcome, ...]:
        """Every expectation that was not met, critical ones first."""
        failed = [o for o in self.outcomes if not o.is_met]
        return tuple(sorted(failed, key=lambda o: o.severity is not Severity.CRITICAL))


class Challenger(Frozen):
    """A trained, registered, not yet believed model."""

    model: ModelRef
    bundle_uri: str = Field(description="Folder with the bundle (see training/bundle/files.py).")
    num_steps: int
    num_training_examples: int
    final_training_loss: float | None = Field(description="None where no loss was logged.")
    seed: int


class Interval(Frozen):
    """An estimate with its interval."""

    value: float
    low: float
    high: float
    confidence: float = Field(gt=0, lt=1)


class MetricComparison(Frozen):
    """One metric in one segment, both sides, on the same rows."""

    metric: str
    segment: str = Field(description="'all', 'core' or 'non_core'.")
    challenger: float
    baseline: float | None = Field(
        description="None where the baseline has no such number: popularity has no probabilities."
    )
    relative_change: Interval | None = Field(
        description="(challenger - baseline) / baseline; None where the baseline is 0 or absent, "
        "or where the metric has no interval (auc, ece)."
    )
    challenger_interval: Interval | None = Field(default=None, description="Of the level itself.")
    baseline_interval: Interval | None = Field(default=None, description="Of the level itself.")


class AbsenceKind(StrEnum):
    """Why a metric has no value."""

    NOT_FINITE = "not_finite"  # the side's own scores are NaN or infinite: the side is at fault
    UNDEFINED = "undefined"  # these rows give the metric no value, whatever the scores are


class AbsentMetric(Frozen):
    """A number that could not be computed, and why."""

    metric: str
    segment: str = Field(description="'all', 'core' or 'non_core'.")
    side: Literal["challenger", "baseline"]
    kind: AbsenceKind
    reason: str = Field(description="A sentence for people.")


class ReliabilityBin(Frozen):
    """One point of a calibration plot: what was predicted and what happened, all segments."""

    side: Literal["challenger", "baseline"]
    head: str
    num_examples: int = Field(ge=1)
    mean_predicted: float = Field(description="Mean predicted probability of the bin.")
    mean_observed: float = Field(description="Share of the bin's examples that had the action.")


class BaselineKind(StrEnum):
    """What the challenger was compared with."""

    CHAMPION = "champion"
    POPULARITY = "popularity"  # first cycle: candidates by trailing wanted actions


class Comparison(Frozen):
    """Facts of a comparison. Permission is `Verdict`."""

    holdout_digest: str = Field(description="Digest of the snapshot whose holdout was scored.")
    holdout: Window
    baseline_kind: BaselineKind
    challenger_model: ModelRef
    champion_model: ModelRef | None
    num_users: int
    num_requests: int
    num_examples: int
    segment_users: dict[str, int] = Field(description="Users per segment.")
    metrics: tuple[MetricComparison, ...]
    absent: tuple[AbsentMetric, ...] = Field(
        default=(), description="What could not be computed; it has no row in metrics."
    )
    target_metric: str = Field(
        default=ModelGateConfig.model_fields["target_metric"].default,
        description="Name of the metric that decides: model_gate.target_metric of the run.",
    )
    smallest_detectable_change: float | None = Field(
        description="Relative change of the target metric that 80 % power would see here; None "
        "where that change could not be resampled, with the reason in `absent`."
    )
    bootstrap_seed: int
    baseline_holdout_digest: str | None = Field(
        default=None, description="holdout_digest of the baseline; None: unknown, not promoted."
    )
    are_scores_identical: bool | None = Field(
        default=None,
        description="Both sides rank every example alike; None: not checked, not promoted.",
    )
    reliability: tuple[ReliabilityBin, ...] = Field(default=(), description="Calibration plot.")

    @property
    def target(self) -> MetricComparison | None:
        """The target metric over all users, or None if it was not computed."""
        return self.find(self.target_metric)

    @property
    def detectable_change(self) -> str:
        """The smallest detectable change as text: '2.00 %', or 'an unknown change'."""
        change = self.smallest_detectable_change
        return "an unknown change" if change is None else f"{100 * change:.2f} %"

    def find(self, metric: str, segment: str = "all") -> MetricComparison | None:
        """Return one comparison, or None if it was not computed."""
        for row in self.metrics:
            if row.metric == metric and row.segment == segment:
                return row
        return None

    def find_absent(
        self, metric: str, segment: str = "all", side: str = "challenger"
    ) -> AbsentMetric | None:
        """Return why one side's number could not be computed, or None if nothing is recorded."""
        for row in self.absent:
            if (row.metric, row.segment, row.side) == (metric, segment, side):
                return row
        return None


class SelfTest(Frozen):
    """What the gate found when it judged models whose right verdict is known, as sentences."""

    findings: tuple[str, ...] = Field(default=(), description="What came out as it must.")
    doubts: tuple[str, ...] = Field(default=(), description="What stands against a promotion.")


class Decision(StrEnum):
    """What may happen next."""

    PROMOTE = "PROMOTE"
    REJECT = "REJECT"
    INCONCLUSIVE = "INCONCLUSIVE"


class Verdict(Frozen):
    """Permission, with its reasons in full sentences."""

    decision: Decision
    reasons: tuple[str, ...] = Field(min_length=1)


class ServingCheck(Frozen):
    """Whether the challenger's bundle would serve, measured in a process of its own."""

    golden_difference: float = Field(description="Largest change of a golden probability.")
    latency_p50_ms: float = Field(description="Median time of one request, ms.")
    latency_p99_ms: float = Field(description="Slowest of a hundred calls, ms.")
    peak_memory_mib: float = Field(description="Peak of the process, MiB.")
    num_candidates: int = Field(description="Candidates of the timed request.")
    num_calls: int = Field(description="Timed calls.")
    score_spread: float = Field(description="Standard deviation of the first head's scores.")
    saturated_share: float = Field(description="Share of scores within 1e-6 of 0 or 1.")
    problems: tuple[str, ...] = Field(default=(), description="What is beyond its limit.")

    def describe(self) -> str:
        """Return the figures as one sentence."""
        return (
            f"Serving check: {self.num_candidates} candidates in {self.latency_p50_ms:.1f} ms "
            f"(median of {self.num_calls} calls; p99 {self.latency_p99_ms:.1f} ms), "
            f"{self.peak_memory_mib:.0f} MiB at peak. {self._golden_sentence()}"
        )

    def _golden_sentence(self) -> str:
        if self.golden_difference == 0:
            return "The stored example rows get exactly the scores they had after training."
        return (
            f"The scores of the stored example rows differ by at most "
            f"{self.golden_difference:.1e} from those they had after training."
        )


class Judgement(Frozen):
    """What `compare_with_champion` publishes."""

    comparison: Comparison
    self_test: SelfTest
    serving: ServingCheck
    verdict: Verdict = Field(description="What `decide` made of the three above, together.")
    report_uri: str = Field(description="Self-contained HTML verdict page.")
    challenger_mlflow_run_id: str
    baseline_mlflow_run_id: str

    @model_validator(mode="before")
    @classmethod
    def _reads_what_earlier_versions_wrote(cls, value: Any) -> Any:
        """Take the self-test from where it stood once: as plain sentences in the comparison."""
        if isinstance(value, dict) and "self_test" not in value:
            comparison = dict(value["comparison"])
            findings = comparison.pop("self_test", ())
            value = value | {"comparison": comparison, "self_test": {"findings": findings}}
        return value


class Promotion(Frozen):
    """What `promote_challenger` did."""

    decision: Decision
    is_promoted: bool
    champion_before: ModelRef | None
    champion_after: ModelRef | None
    reason: str = Field(description="One sentence.")
    history_uri: str | None = Field(description="Entry in the append-only history, if promoted.")


class AlertKind(StrEnum):
    """Why somebody is told."""

    REGRESSION = "regression"
    INCONCLUSIVE = "inconclusive"
    DATA_GATE_FAILED = "data_gate_failed"
    BROKEN_RUN = "broken_run"


class Alert(Frozen):
    """The one message: what happened, how sure we are, what was done, what to run next."""

    kind: AlertKind
    run_id: str
    title: str = Field(description="One line.")
    happened: str
    certainty: str = Field(description="How sure we are: interval, power, or which check failed.")
    done: str = Field(description="What the pipeline did about it; which model serves now.")
    next_command: str = Field(description="The command to run next.")
    links: tuple[tuple[str, str], ...] = Field(default=(), description="(label, URI) pairs.")


class AlertReceipt(Frozen):
    """What `alert` publishes: the message, if one was due, and where it went."""

    alert: Alert | None
    delivered_to: tuple[str, ...]


class StageFailure(Frozen):
    """Why a stage's last attempt failed; for the alert and for whoever looks."""

    stage: str
    error_class: str
    message: str
    exit_code: int
    is_retryable: bool
    occurred_at: AwareDatetime


class StageRecord(Frozen):
    """`manifest.json` of a stage: the artifact and the input it belongs to."""

    stage: str
    input_digest: str = Field(description="Digest of everything the artifact depends on.")
    artifact: dict = Field(description="JSON form of the stage's artifact.")  # type: ignore[type-arg]
    wall_s: float = Field(ge=0, description="Seconds of the attempt that published it.")
    finished_at: AwareDatetime
