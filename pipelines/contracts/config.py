"""The configuration of one retraining cycle: a complete frozen value, made by `pipelines.recipes`.

Holds what decides the result: what a model is told and is, how it is fitted, and what data, models
and bundles are held to. Where things run (URIs, transports, ports) is `pipelines.settings`. What
the numeric features mean is `pipelines.contracts.features`.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from pipelines.contracts.base import Frozen, digest_of
from pipelines.contracts.features import (
    BASELINE_FEATURES,
    FeatureMeaning,
    Option,
    meaning_of,
)

Share = Annotated[float, Field(ge=0, le=1)]
Loss = Annotated[float, Field(ge=0, lt=1)]
Number = Annotated[int, Field(ge=1)]
Days = Annotated[int, Field(ge=1, le=366)]
Age = Annotated[float | None, Field(gt=0, le=3660)]
Text = Annotated[str | None, Field(min_length=1)]


class CategoricalFeature(Frozen):
    """A feature with a closed list of values; anything else shares the bucket of code 0."""

    name: str  # Column name in the event log table.
    table: Literal["impressions", "pins", "users"]  # Where the column lives.
    values: tuple[str, ...] = Field(max_length=32_767)  # The code is the index + 1.


class NumericFeature(Frozen):
    """A number per candidate that the snapshot computes from rows known before the request.

    An option that is not given has the value that docs/features.md shows. It is left out of the
    JSON form, so that a recipe's digest does not change when features get new options.
    """

    name: str  # Which feature; docs/features.md lists them.
    days: Age = None  # Trailing window of user_activity, days.
    num_actions: int | None = Field(None, ge=1, le=2000)  # Newest actions looked at.
    half_life_days: Age = None  # Age that halves an action's weight, days.
    gap_minutes: float | None = Field(None, gt=0, le=1440)  # Silence that ends a session, minutes.
    column: Text = None  # Column of pins with a time in ms, for pin_age.
    category: Text = None  # A categorical feature of pins.
    may_be_missing: bool | None = None  # NaN of an own function is 'not known'.
    # sha256 of the file in which an own function stands. Who reads the recipe sets it, whatever it
    # says; None for other features.
    source_digest: str | None = Field(None, pattern=r"[0-9a-f]{64}")

    @model_validator(mode="after")
    def _options_belong_to_the_feature(self) -> Self:
        options = self.meaning.options
        known = {"name", *options} | ({"source_digest"} if self.is_own else set())
        if foreign := sorted(set(self.model_dump()) - known):
            raise ValueError(
                f"features.numeric: {self.name!r} has no option {foreign[0]!r}; expected "
                f"{f'some of {sorted(options)}' if options else 'no option'}; leave it out"
            )
        if "category" in options and self.category is None:
            raise ValueError(
                f"features.numeric: {self.name!r} needs the option 'category'; set it to the name "
                f"of a categorical feature of the table pins"
            )
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_not_given(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if value is not None}

    @property
    def meaning(self) -> FeatureMeaning:
        """What the feature is."""
        return meaning_of(self.name)

    @property
    def is_own(self) -> bool:
        """The feature is a function of the recipe's author, named by its import path."""
        return self.meaning.name == "<package.module>:<function>"

    @property
    def as_asked(self) -> Self:
        """The feature as a recipe asks for it, whatever an own function's source was then."""
        return self.model_copy(update={"source_digest": None})

    @property
    def has_flag(self) -> bool:
        """The feature may be missing, and a second column says where it is."""
        return bool(self.may_be_missing if self.is_own else self.meaning.may_be_missing)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of its numbers: its own, then that of its flag where it may be missing."""
        return (self.name, flag_name(self.name)) if self.has_flag else (self.name,)

    @property
    def action_type(self) -> str | None:
        """The action type that `user_actions:<action_type>` counts; None for other features."""
        is_count = self.meaning.name == "user_actions:<action_type>"
        return self.name.partition(":")[2] if is_count else None

    @property
    def label(self) -> str:
        """The feature with the options that were given, as people read it."""
        options = self.model_dump(exclude={"name", "source_digest"})
        given = ", ".join(f"{name}={value}" for name, value in options.items())
        return f"{self.name} ({given})" if given else self.name

    def column_of(self, table: str) -> str | None:
        """Return the number column of an event log table that the feature reads, or None."""
        if self.meaning.name == f"{table}.<column>":
            return self.name.partition(".")[2]
        return self.column if table == "pins" else None

    def option(self, name: str) -> Option:
        """Return an option's value: the one given, or else the catalogue's."""
        given: Option | None = getattr(self, name)
        return self.meaning.options[name] if given is None else given


def flag_name(name: str) -> str:
    """Return the name of the number that is 1 where a feature is missing."""
    return f"{name}_missing"


def number_columns(numeric: Sequence[NumericFeature], table: str) -> tuple[str, ...]:
    """Return the number columns of an event log table that features read, each once, in order."""
    return tuple(dict.fromkeys(name for each in numeric if (name := each.column_of(table))))


class DataGateConfig(Frozen):
    """Thresholds of the data gate; changes are relative to the last accepted snapshot."""

    min_training_requests: Number = 100  # Fewer is critical.
    min_holdout_requests: Number = 50  # Fewer is critical.
    min_positive_share: Share = Field(0.001, gt=0)  # Target label rate, lowest.
    max_positive_share: Share = 0.6  # Target label rate, highest.
    min_sequence_share: Share = 0.5  # Requests with an earlier action.
    max_unknown_category_share: Share = 0.2  # Code 0; a warning above.
    max_zero_embedding_share: Share = 0.01  # Referenced pins that are all zero.
    max_row_count_change: float = Field(0.5, gt=0)  # Change of the rows.
    max_label_rate_change: float = Field(0.3, gt=0)  # Change of a label rate.
    max_population_stability_index: float = Field(0.25, gt=0)  # PSI of a feature; a warning above.
    min_rows_for_shift: Number = 1000  # Below, shift is not judged.
    # Limits that come from earlier days and snapshots are so many times as wide: for a log whose
    # sound days bring warnings, which say how many times its limit a number was.
    limit_factor: float = Field(1.0, ge=1.0)


class _Bounds(Frozen):
    """A metric with one or two bounds; every other field of a subclass is a bound."""

    metric: str  # Metric name as in MLflow, e.g. 'calibration_ratio.repin'.

    @model_validator(mode="after")
    def _has_a_bound(self) -> Self:
        bounds = self.model_dump(exclude={"metric"})
        if set(bounds.values()) == {None}:
            raise ValueError(
                f"limit on {self.metric!r} has neither {' nor '.join(bounds)}; set one of them"
            )
        return self


class Limit(_Bounds):
    """A bound on one metric of the challenger on the holdout."""

    minimum: float | None = None  # Not promoted below.
    maximum: float | None = None  # Not promoted above.


class RelativeLimit(_Bounds):
    """A bound on the relative change of one metric, challenger against champion."""

    max_increase: float | None = Field(None, ge=0)  # 0.02 means +2 %.
    max_decrease: float | None = Field(None, ge=0)  # 0.02 means -2 %.


TOP_K = 3
"""What of a ranking counts as shown, in the target metric and in the learning curve."""


class ModelGateConfig(Frozen):
    """What a challenger must show. The target metric is repin volume at 3 unless changed."""

    target_metric: str = "repin_volume_at_3"  # Decides; higher is better.
    margin: Loss = 0.01  # Relative loss that freshness is worth (0.01 = 1 %).
    recipe_margin: Loss = 0.01  # Relative loss allowed against the fresh anchor.
    seed_noise: Loss = 0.002  # Standard deviation between seeds, relative.
    # What the first champion must beat: every simple ranking, without being worse than the logistic
    # regression by the margin, or the ranking by popularity over 28 days.
    first_champion_beats: Literal["popularity", "every_baseline"] = "every_baseline"
    first_lift: Loss = 0.1  # Surely more waits for a person while fewer than 4 cycles are known.
    max_unpromoted_cycles: Number = 4  # Then a person is asked to look.
    confidence: float = Field(0.95, gt=0.5, lt=1)  # Of the paired interval.
    seed: int = Field(11, ge=0)  # Of what the gate's self-test shuffles and draws.
    min_users: int = Field(50, ge=2)  # Fewer holdout users: not promoted.
    # Of a holdout with more users so many are scored, doubled as often as the bounds ask for it.
    sample_users: Number = 1_000_000
    # Absolute bounds for the challenger, every cycle.
    floors: tuple[Limit, ...] = Field(min_length=1)
    guardrails: tuple[RelativeLimit, ...] = ()  # Bounds against the champion.
    required_segments: tuple[str, ...] = ("core", "non_core")  # Segments that must not be empty.
    segment_margin: Loss = 0.05  # Relative loss allowed in a required segment.
    min_head_positives: Number = 50  # Fewer: the head is not judged.
    min_head_calibration: Share = Field(0.5, gt=0)  # Predicted / observed, not below.
    max_head_calibration: float = Field(2.0, ge=1)  # Predicted / observed, not above.


class ApprovalConfig(Frozen):
    """A promotion waits for a person, who is asked in Airflow."""

    by: tuple[str, ...] = ()  # Ids of Airflow users; () for who may edit runs.
    within_hours: float = Field(24.0, gt=0, le=72)  # Then the champion stays.


class PromotionConfig(Frozen):
    """What a promotion needs besides a verdict that permits it."""

    approval: ApprovalConfig | None = None  # Whom to ask; None: nobody.


class ServingConfig(Frozen):
    """What a bundle may cost to serve; checked on the machine that compares, before a promotion."""

    num_candidates: Number = 100  # Candidates of the timed request.
    num_calls: int = Field(200, ge=20)  # Timed calls, after a warm-up.
    max_processor_p99_ms: float = Field(250.0, gt=0)  # Of the slowest call in 100, ms.
    # Of a call's time over that of the champion's beside it, the median.
    max_wall_ratio: float = Field(2.0, gt=0)
    max_memory_mib: float = Field(2048.0, gt=0)  # Peak of the process, MiB.


IMPRESSION_ROW = "impression"
"""Name of the label-weight row that every impression has, acted upon or not."""


class Head(Frozen):
    """One predicted action: a probability per candidate."""

    name: str  # Head name; metrics are named after it.
    action_type: str  # The action type whose presence is the label.
    utility_weight: float  # In the ranking score; negative if unwanted.
    is_wanted: bool = True  # False where less is better, as for hide.


class LabelWeight(Frozen):
    """One entry of the label weight matrix M (TransAct, section 3.4): w_h = sum_a M[h, a] y_a."""

    head: str  # Head name (row).
    label: str  # Head name of the label, or 'impression' (column).
    weight: float = Field(ge=0)  # M[h, a].


class UserWeight(Frozen):
    """One factor of a user's weight in the loss: w_u = w_state x w_location x ..."""

    feature: str  # A categorical feature of the table users.
    value: str  # The value that is weighted.
    weight: float = Field(ge=0)  # Factor; values that are not listed have 1.


class FeatureConfig(Frozen):
    """What the model is told besides the sequence and the embeddings."""

    action_types: tuple[str, ...] = Field(
        min_length=1,
        max_length=127,  # as many as ids fit a byte
        description="Vocabulary of the sequence; the id is the index + 1, 0 pads.",
    )
    heads: tuple[Head, ...] = Field(min_length=1)  # Predicted actions; the first is the main head.
    # Entries of M that differ from the default of 1 for 'impression'.
    label_weights: tuple[LabelWeight, ...] = ()
    user_weights: tuple[UserWeight, ...] = ()  # Factors in the loss.
    categorical: tuple[CategoricalFeature, ...] = ()  # Closed lists.
    numeric: tuple[NumericFeature, ...] = ()  # Computed numbers.

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Self:
        for kind, names in {
            "action_types": self.action_types,
            "heads": self.head_names,
            "categorical": tuple(feature.name for feature in self.categorical),
            "numeric": self.numeric_inputs,  # a column may have the name of another one's flag
        }.items():
            if len({*names}) != len(names):
                raise ValueError(f"features.{kind}: names must be unique, found {names}")
        for head in self.heads:
            if head.action_type not in self.action_types:
                raise ValueError(
                    f"features.heads: head {head.name!r} needs action type {head.action_type!r}, "
                    f"which is not in features.action_types {self.action_types}"
                )
        known = {f.name: f.values for f in self.categorical_of("users")}
        for entry in self.user_weights:
            if entry.value not in known.get(entry.feature, ()):
                raise ValueError(
                    f"features.user_weights: found {entry.feature}={entry.value!r}; expected a "
                    f"categorical feature of users and one of its values: {known}"
                )
        of_pins = tuple(feature.name for feature in self.categorical_of("pins"))
        for feature in self.numeric:
            if feature.action_type not in (None, *self.action_types):
                raise ValueError(
                    f"features.numeric: {feature.name!r} counts an action type that is not in "
                    f"features.action_types {self.action_types}; add it there or correct the name"
                )
            if feature.category not in (None, *of_pins):
                raise ValueError(
                    f"features.numeric: {feature.name!r} has category={feature.category!r}; "
                    f"expected a categorical feature of pins: {of_pins}; add it to "
                    f"features.categorical with table='pins'"
                )
        return self

    @property
    def head_names(self) -> tuple[str, ...]:
        """Head names in order; the first is the main head."""
        return tuple(head.name for head in self.heads)

    @property
    def main_head(self) -> Head:
        """The first head: who did its action lately is a core user.

        A snapshot needs positives of it in both windows. The model gate does not ask for it: what
        decides there is `model_gate.target_metric`.
        """
        return self.heads[0]

    @property
    def numeric_inputs(self) -> tuple[str, ...]:
        """The numbers that the model is told, in order: each feature, then its flag if it has one.

        `schemas.numeric_column` gives their columns.
        """
        return tuple(name for feature in self.numeric for name in feature.inputs)

    @property
    def numeric_held(self) -> tuple[NumericFeature, ...]:
        """The numeric features that a snapshot holds: the baselines', then the recipe's others.

        Where the recipe gives a baseline's feature its own options, the snapshot holds that one.
        """
        baselines = {name: NumericFeature(name=name) for name in BASELINE_FEATURES}
        return tuple((baselines | {feature.name: feature for feature in self.numeric}).values())

    def categorical_of(self, table: str) -> tuple[CategoricalFeature, ...]:
        """Return the categorical features that live in one event log table, in order."""
        return tuple(feature for feature in self.categorical if feature.table == table)


class SnapshotConfig(Frozen):
    """Which rows become examples. All windows are half-open [start, end) and end on as_of."""

    embedding_version: str  # The pin embedding basis the model is built on.
    training_days: Days = 14  # Training window, days.
    embargo_days: int = Field(1, ge=0, le=60)  # Gap before the holdout, days.
    holdout_days: int = Field(7, ge=1, le=60)  # Holdout window, days.
    # How long after an impression an action counts.
    label_window_hours: int = Field(24, ge=1, le=24 * 30)
    history_days: int = Field(180, ge=1, le=3660)  # Of actions, before training.
    popularity_days: Days = 28  # Trailing window, days.
    core_days: Number = 28  # Since a core user's last action of the main head.
    num_shards: int = Field(8, ge=1, le=65536)  # Shards, by a hash of the user.

    @model_validator(mode="after")
    def _embargo_covers_labels(self) -> Self:
        if self.embargo_days * 24 < self.label_window_hours:
            raise ValueError(
                f"snapshot.embargo_days={self.embargo_days} is shorter than "
                f"snapshot.label_window_hours={self.label_window_hours}: a training label could "
                f"come from the holdout; set embargo_days to at least "
                f"{-(-self.label_window_hours // 24)}"
            )
        return self


RECIPE_WINDOWS = ("embedding_version", "history_days", "popularity_days", "training_days")
"""What of `SnapshotConfig` belongs to a recipe. The rest says what all models are measured on."""


class ModelConfig(Frozen):
    """TransAct encoder, DCN v2 and heads; names and defaults follow the paper."""

    max_actions: int = Field(100, ge=1, le=2000)  # Newest actions used.
    use_sequence_encoder: bool = True  # The TransAct encoder.
    # 'reference' is the published encoder: hidden positions have outputs, and a linear layer
    # follows the max pool. In 'append' the candidate is a last token: fast, and less exact.
    encoder_variant: Literal["default", "reference", "append"] = "default"
    use_action_ages: bool = False  # Tokens tell ages; not as published.
    # Candidate-to-sequence features: best cosine, exact matches by type.
    use_sequence_matches: bool = False
    action_embedding_dim: Number = 32  # Width of an action type.
    num_layers: Number = 2  # Encoder layers.
    num_attention_heads: Number = 1  # Attention heads.
    feedforward_dim: Number = 32  # Encoder FFN width.
    dropout: Loss = 0.1  # Encoder dropout.
    first_k: Number = 10  # Newest output columns beside the max pool.
    # T ~ U(0, this): younger actions are masked in training.
    time_window_mask_hours: float = Field(24.0, ge=0)
    num_cross_layers: Number = 2  # Full-rank DCN v2 layers.
    mlp_dims: tuple[int, ...] = (256, 128)  # Widths after the cross net.
    mlp_dropout: Loss = 0.0  # Dropout in the MLP.
    categorical_dim: Number = 8  # Width of a categorical feature.


class TrainingConfig(Frozen):
    """How the challenger is fitted. A change here changes the model."""

    seed: int = Field(17, ge=0)  # Seed of weights, order, dropout and mask.
    num_epochs: Number = 2  # Passes over the training window.
    batch_size: Number = 2048  # Candidates per global batch.
    learning_rate: float = Field(0.0048, gt=0)  # Peak rate of Adam.
    weight_decay: float = Field(0.0, ge=0)  # Decoupled weight decay.
    warmup_steps: int = Field(5000, ge=0)  # Linear warm-up, then cosine.
    gradient_clip: float = Field(1.0, gt=0)  # Largest gradient norm.
    negative_keep_fraction: Share = Field(1.0, gt=0)  # Of action-less impressions.
    # Arithmetic of training; 64-true, slow, compares trainings beyond rounding.
    precision: Literal["32-true", "bf16-mixed", "64-true"] = "32-true"
    checkpoint_every_steps: Number = 200  # Steps between checkpoints.


class RecipeRef(Frozen):
    """Which recipe something was made by; it stands in every lineage, beside the code's identity.

    The name is what the recipe calls itself, and several may share it. The digest tells recipes
    apart, and the reference says where the recipe was read.
    """

    name: str
    digest: str
    reference: str  # A name in pipelines/recipes, module:function or a URI.

    @property
    def label(self) -> str:
        """Return 'name (digest)', for people, and where a recipe from outside was read."""
        origin = "" if self.reference == self.name else f", {self.reference}"
        return f"{self.name} ({self.digest[:12]}{origin})"


class RunConfig(Frozen):
    """Everything that decides the result of a cycle, saved with it."""

    recipe: str  # Name of the recipe that made this value.
    source: str = Field(
        "",
        exclude_if=lambda source: not source,  # A recipe that is shown can be saved as a file.
    )
    """Where a recipe from outside was read: module:function, or its file's URI. Who reads it sets
    it; '' for the recipes of this project."""
    features: FeatureConfig
    snapshot: SnapshotConfig
    model: ModelConfig
    training: TrainingConfig
    data_gate: DataGateConfig
    model_gate: ModelGateConfig
    serving: ServingConfig = ServingConfig()
    promotion: PromotionConfig = PromotionConfig()

    @property
    def reference(self) -> str:
        """What names the recipe on a command line: its name, or where it was read."""
        return self.source or self.recipe

    @property
    def recipe_ref(self) -> RecipeRef:
        """Which recipe this is, for a lineage."""
        return RecipeRef(name=self.recipe, digest=self.recipe_digest, reference=self.reference)

    @property
    def recipe_digest(self) -> str:
        """sha256 (hex) of what tells recipes apart: what a model is told, is, and how it is fitted.

        The seed is left out, because luck is no recipe; and so is what changes no model. Windows,
        labels and segments but for the length of training are the run's for all its models.
        """
        parts = self.model_dump(mode="json", include={"features", "model", "training"})
        parts["snapshot"] = self.snapshot.model_dump(include=set(RECIPE_WINDOWS))
        for name in ("seed", "checkpoint_every_steps"):
            parts["training"].pop(name)
        return digest_of(parts)

    @model_validator(mode="after")
    def _unwanted_heads_are_guarded(self) -> Self:
        guarded = {limit.metric for limit in self.model_gate.guardrails}
        for head in self.features.heads:
            if not head.is_wanted and f"hit_at_3.{head.name}" not in guarded:
                raise ValueError(
                    f"model_gate.guardrails: head {head.name!r} is unwanted, so "
                    f"'hit_at_3.{head.name}' needs a relative limit (max_increase)"
                )
        return self
