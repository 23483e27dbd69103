"""Artifacts: what a stage takes and gives. Frozen, JSON-able, and silent about how they were made.

What judging and promoting leave behind is in `pipelines.contracts.judgement`.

On disk a run is a folder:

    <workspace>/runs/<run_id>/<stage>/manifest.json    a StageRecord, written last
    <workspace>/runs/<run_id>/<stage>/output-<attempt>/ the stage's other files
    <workspace>/runs/<run_id>/<stage>/failure.json     the last failure, removed by success
    <workspace>/snapshots/<digest>/...                 shared by every run that needs it
    <workspace>/accepted_code/<digest>/    a wheel of the code that trained, with its pins
    <workspace>/history/<model>/*.json                 who was serving when, append-only
    <workspace>/cycles.html                            index of all cycles, for people
    <workspace>/schedule/record.json                   due dates that are accounted for
    <workspace>/outbox/*.json                          alerts, and which transports took them
"""

from datetime import datetime
from enum import StrEnum, auto
from typing import Any, Literal

from pydantic import AwareDatetime, Field

from pipelines.contracts.base import Artifact, Frozen, digest_of
from pipelines.contracts.config import FeatureConfig, RunConfig
from pipelines.contracts.time import Window, floor_to_day

STAGES = (
    *("resolve_run", "build_snapshot", "check_snapshot", "train_challenger", "train_anchor"),
    *("compare_with_champion", "promote_challenger", "alert"),
)


class ModelRef(Frozen):
    """A registered model version, pinned: never an alias."""

    name: str  # Registered model name.
    version: str  # Registry version number.
    mlflow_run_id: str  # Run that logged it.
    as_of: AwareDatetime  # as_of of the cycle that trained it (UTC).
    # Digests come from a registry's tags and name folders: they have no separators.
    bundle_digest: str = Field(pattern=r"^\w*$")  # sha256 over the bundle's files.
    snapshot_digest: str = Field(pattern=r"^\w*$")  # Of the snapshot it was trained on.
    # sha256 over all files that serve; '' before it is registered.
    model_digest: str = Field(default="", pattern=r"^\w*$")

    @property
    def label(self) -> str:
        """Return 'name v3', for people."""
        return f"{self.name} v{self.version}"


MAX_DEVICES = MAX_NODES = 64
"""Most training processes on one machine, and most machines: none has more GPUs, and a typing error
is not built upon. The trigger form in Airflow has the same bounds."""


class CycleOptions(Frozen):
    """What is asked for and stays as it is: a request and the run resolved from it both hold it."""

    may_promote: bool  # False compares and reports, and moves nothing.
    num_devices: int = Field(ge=1, le=MAX_DEVICES)  # Training processes per machine.
    accelerator: Literal["cpu", "gpu"] = "cpu"
    num_nodes: int = Field(default=1, ge=1, le=MAX_NODES)  # Machines.
    trigger: str  # Airflow run id, or a name: the same one is the same cycle.

    def options(self) -> dict[str, Any]:
        """Return these options alone, by name."""
        return self.model_dump(include=set(CycleOptions.model_fields))


class RunRequest(CycleOptions):
    """What an operator or a schedule asks for: the input of `resolve_run`."""

    recipe: str  # A recipe's reference, as `pipelines.recipes.canonical` gives.
    as_of: AwareDatetime | None  # None takes `now`; floored to the day, UTC.
    now: AwareDatetime  # Interval end of a schedule, else the wall clock.

    @property
    def day(self) -> datetime:
        """Midnight (UTC) of the day asked for: the run's as_of."""
        return floor_to_day(self.as_of or self.now)

    @property
    def run_id(self) -> str:
        """Name of the cycle: the same recipe, trigger and day are the same cycle."""
        return f"{self.day:%Y-%m-%d}--{digest_of([self.trigger, self.recipe])[:8]}"


class Standing(Frozen):
    """What was on record about recipes when a cycle was resolved."""

    anchor: RunConfig | None = None  # The last accepted recipe; None before the first promotion.
    anchor_code_digest: str = ""  # Code that the recipe was accepted by.
    anchor_code_uri: str = ""  # Folder that keeps that code.
    problem: str = ""  # Why a model serves and no recipe is known; nothing is promoted.
    hold: str = ""  # Why the run's own recipe may not be promoted: it was rolled back.
    # Of records of before, which measured it; None: the recipe's option.
    seed_noise: float | None = Field(default=None, ge=0)
    # Days judged since the champion moved, by runs that could promote.
    unpromoted: tuple[AwareDatetime, ...] = ()
    # When the champion moved last; earlier evidence is not pooled.
    champion_since: AwareDatetime | None = None
    # When a person last accepted a recipe by hand; the long-term line begins anew.
    looked_at: AwareDatetime | None = None
    # The last rollback; evidence of recipes before it is not pooled.
    rolled_back_at: AwareDatetime | None = None
    # Numbers of these three in the history, which order; 0: never, or not recorded.
    champion_entry: int = 0
    looked_entry: int = 0
    rolled_back_entry: int = 0


class PinnedFile(Frozen):
    """A file that a run depends on, with what it held when the run was resolved."""

    uri: str
    sha256: str


class PinnedEntry(Frozen):
    """The newest entry of a log: a move that was decided against it may create the next one only.

    Of a log without entries the number is 0.
    """

    number: int = Field(0, ge=0)
    sha256: str = ""


class ResolvedRun(CycleOptions, Artifact):
    """What `resolve_run` fixed; every later stage is a pure function of this."""

    run_id: str  # Folder name under <workspace>/runs, unique per cycle.
    run_uri: str  # URI of the run folder.
    as_of: AwareDatetime  # Only rows known before this UTC midnight count.
    config: RunConfig
    code_version: str  # Commit or version of the project, for people.
    code_digest: str = ""  # Digest of the code that decides a model's quality.
    event_log_uri: str
    candidates: str = ""  # How they were drawn; '' where they were logged.
    workspace_uri: str
    work_folder: str = ""  # HOMEFEED_WORK_FOLDER.
    tracking_uri: str  # MLflow server (no credentials in it).
    experiment: str  # MLflow experiment name.
    registered_model: str  # MLflow registered model name.
    champion: ModelRef | None  # Pinned at the start; None in the first cycle.
    # Of the history of moves then; a promotion may create the entry after it only.
    newest_entry: PinnedEntry = PinnedEntry()
    # Who serves, where that model is of this as_of or newer; `champion` is then the one before
    # as_of, and nothing may be promoted.
    later_champion: ModelRef | None = None
    # Snapshot that the data gate last accepted, for shift; None in the first cycle.
    last_accepted_snapshot_uri: str | None
    standing: Standing = Standing()
    # Records of earlier cycles whose evidence may be pooled with this.
    judged_before: tuple[PinnedFile, ...] = ()

    @property
    def seed_noise(self) -> float:
        """Standard deviation of the target's relative change between seeds."""
        measured = self.standing.seed_noise
        return self.config.model_gate.seed_noise if measured is None else measured

    def to_request(self) -> RunRequest:
        """Return the request that names this very cycle, as if it were made on the cycle's day."""
        day = self.as_of
        return RunRequest(recipe=self.config.reference, as_of=day, now=day, **self.options())


class FileDigest(Frozen):
    """One file of an artifact folder."""

    path: str  # Relative to the artifact's URI, with forward slashes.
    sha256: str
    num_bytes: int = Field(ge=0)


class ShardStats(Frozen):
    """Counts of one shard."""

    name: str  # Folder name, e.g. 'shard-00003'.
    num_users: int
    num_actions: int
    num_requests: int
    num_examples: int


class EventCounts(Frozen):
    """How a snapshot's actions fit its requests; per snapshot."""

    num_naming: int = 0  # Actions in a window, but for its first label window, with a request.
    num_naming_unknown: int = 0  # Of these, naming none of their user's in the snapshot.
    num_near: int = 0  # Actions without a request whose pin was shown before or after.
    num_early: int = 0  # Of these, shown only after the action.


class Snapshot(Artifact):
    """An immutable, content-addressed training and holdout set.

    <uri>/pins.arrow                        PIN_ROWS (+ PIN_TIME) + codes, all shards' pins
    <uri>/shard-00000/timeline.arrow        TIMELINE
    <uri>/shard-00000/requests.arrow        REQUESTS
    <uri>/shard-00000/examples.arrow        EXAMPLE_KEYS + features + labels
    <uri>/shard-00000/users.arrow           USER_ROWS + categorical codes
    <uri>/manifest.json                     this value, written last
    """

    uri: str
    digest: str  # sha256 over the files' digests: the content's address.
    as_of: AwareDatetime
    training: Window
    holdout: Window
    embedding_version: str
    features: FeatureConfig  # What the codes and label columns mean.
    shards: tuple[ShardStats, ...]
    num_pins: int
    files: tuple[FileDigest, ...]
    num_duplicate_impressions: int  # Dropped: same request and pin again.
    num_immature_impressions: int  # Left out: younger than the label window.
    num_cold_pins: int = 0  # Pins without an embedding before as_of.
    event_counts: EventCounts = EventCounts()

    @property
    def num_requests(self) -> int:
        """Requests over all shards, both windows."""
        return sum(shard.num_requests for shard in self.shards)

    @property
    def num_examples(self) -> int:
        """Examples over all shards, both windows."""
        return sum(shard.num_examples for shard in self.shards)

    def places(self) -> dict[str, int | None]:
        """Every file with its size, and the manifest."""
        files = {f"{self.uri}/{file.path}": file.num_bytes for file in self.files}
        return {f"{self.uri}/manifest.json": None, **files}


class Severity(StrEnum):
    """What a failed expectation means."""

    CRITICAL = "critical"
    WARNING = "warning"


class ExpectationOutcome(Frozen):
    """One expectation of the data gate, judged."""

    name: str  # Short id, e.g. 'target_label_rate'.
    description: str  # A sentence for people.
    severity: Severity
    is_met: bool
    observed: str  # Value found, as text.
    expected: str  # Value expected, as text.
    partitions: tuple[str, ...] = ()  # Offending shards or days.
    # False where nothing could be compared; `observed` says why, and it is met.
    is_judged: bool = True
    # True where it is not met only because parts could not be measured.
    is_unmeasured: bool = False
    accepted_by: str = ""  # Who accepted it though it is not met, and why; '' where nobody did.

    @property
    def stops_the_cycle(self) -> bool:
        """Whether it is critical, not met, and accepted by nobody."""
        return self.severity is Severity.CRITICAL and not self.is_met and not self.accepted_by


class Judged(Artifact):
    """Outcomes of the data gate, about whatever was judged."""

    outcomes: tuple[ExpectationOutcome, ...]
    docs_uri: str  # Entry page of the Data Docs.

    @property
    def is_accepted(self) -> bool:
        """True when no critical expectation failed that nobody accepted."""
        return not any(outcome.stops_the_cycle for outcome in self.outcomes)

    @property
    def failures(self) -> tuple[ExpectationOutcome, ...]:
        """Every expectation that was not met, critical ones first."""
        failed = [o for o in self.outcomes if not o.is_met]
        return tuple(sorted(failed, key=lambda o: o.severity is not Severity.CRITICAL))

    @property
    def causes(self) -> tuple[ExpectationOutcome, ...]:
        """The failures without those that could not be measured because of the others.

        All of them, where nothing that was measured stops the cycle.
        """
        measured = tuple(o for o in self.failures if not o.is_unmeasured)
        return measured if any(o.stops_the_cycle for o in measured) else self.failures

    @property
    def warnings(self) -> tuple[ExpectationOutcome, ...]:
        """Every expectation that was not met and does not stop the cycle."""
        return tuple(o for o in self.failures if not o.stops_the_cycle)

    def places(self) -> dict[str, int | None]:
        """The entry page of the Data Docs."""
        return {self.docs_uri: None}


class EventLogReport(Judged):
    """How the days of an event log were found, before anything was built of them."""

    num_judged_days: int
    num_history_days: int  # Days that they were held against.


class DataReport(Judged):
    """Outcome of the data gate."""

    snapshot_digest: str
    reference_digest: str | None  # Snapshot the shift was judged against.
    log_docs_uri: str = ""  # Data Docs of the event log; '' before.


class Challenger(Artifact):
    """A trained, registered, not yet believed model."""

    model: ModelRef
    bundle_uri: str  # Folder with the bundle (see training/bundle/files.py).
    bundle_files: tuple[FileDigest, ...] = ()  # Files of that folder.
    num_steps: int
    num_training_examples: int
    final_training_loss: float | None  # None where no loss was logged.
    seed: int

    def places(self) -> dict[str, int | None]:
        """Every file of the bundle with its size."""
        files = {f"{self.bundle_uri}/{file.path}": file.num_bytes for file in self.bundle_files}
        return {self.bundle_uri: None, **files}


class AnchorWhy(StrEnum):
    """Why the accepted recipe was made fresh, or was not."""

    OTHER_RECIPE = auto()
    OTHER_CODE = auto()
    NOT_ACCEPTED = auto()
    NOTHING_SERVES = auto()
    SAME = auto()
    OTHER_BOTH = auto()
    SAME_MODEL = auto()
    CODE_NOT_RUN = auto()
    NOT_POSSIBLE = auto()


_WHY_FRESH = {
    "other_recipe": "The run's recipe differs from the accepted one, which was made fresh from the "
    "same log, on the days that it asks for.",
    "other_code": "The run's recipe is the accepted one, trained by other code; the accepted code "
    "trained it from the same log, so the change of code is judged alone.",
    "not_accepted": "No recipe is accepted yet.",
    "nothing_serves": "No model serves that the accepted recipe could be held against.",
    "same": "The run's recipe is the accepted one, so the challenger is the fresh anchor.",
    "other_both": "Both the run's recipe and its code differ from what is accepted; the accepted "
    "code made the accepted recipe fresh from the same log, on the days that it asks for.",
    "same_model": "The accepted code made the challenger's very weights and scores: the change of "
    "code changes nothing, and is accepted where the challenger is promoted.",
    "code_not_run": "The run's code is not the accepted one, which could not be run.",
    "not_possible": "The accepted recipe cannot be made any more.",
}


class FreshAnchor(Artifact):
    """What `train_anchor` publishes: the accepted recipe made fresh, or why it was not made."""

    trained: Challenger | None = None
    code_digest: str = ""  # Code that trained it; '' where none did.
    snapshot: Snapshot | None = None  # What it was trained on and is scored on.
    why: AnchorWhy
    problem: str = ""  # Why the accepted recipe cannot be made; nothing is promoted.

    @property
    def reason(self) -> str:
        """Why it was made or not, as a sentence."""
        return _WHY_FRESH[self.why]

    def places(self) -> dict[str, int | None]:
        """Every file of the bundle and of the snapshot with its size, if one was trained."""
        owned = (self.trained, self.snapshot)
        return {uri: size for part in owned if part for uri, size in part.places().items()}
