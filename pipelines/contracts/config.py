"""The configuration of one retraining cycle: a complete frozen value, made by `pipelines.recipes`.

Holds what decides the result. Where things run (URIs, transports, ports) is `pipelines.settings`.
"""

from typing import Literal, Self

from pydantic import Field, model_validator

from pipelines.contracts.base import Frozen, digest_of
from pipelines.contracts.features.categorical import CategoricalFeature
from pipelines.contracts.features.numeric import NumericFeature, check_numeric, held_features
from pipelines.contracts.gates.data_gate import DataGateConfig
from pipelines.contracts.gates.model_gate import Limit, ModelGateConfig, RelativeLimit
from pipelines.contracts.gates.promotion import ApprovalConfig, PromotionConfig
from pipelines.contracts.gates.serving import ServingConfig

__all__ = [
    "ApprovalConfig",
    "CategoricalFeature",
    "DataGateConfig",
    "FeatureConfig",
    "Head",
    "IMPRESSION_ROW",
    "LabelWeight",
    "Limit",
    "ModelConfig",
    "ModelGateConfig",
    "NumericFeature",
    "PromotionConfig",
    "RECIPE_WINDOWS",
    "RecipeRef",
    "RelativeLimit",
    "RunConfig",
    "ServingConfig",
    "SnapshotConfig",
    "TrainingConfig",
    "UserWeight",
]

IMPRESSION_ROW = "impression"
"""Name of the label-weight row that every impression has, acted upon or not."""


class Head(Frozen):
    """One predicted action: a probability per candidate."""

    name: str = Field(description="Head name; metrics are named after it.")
    action_type: str = Field(description="The action type whose presence is the label.")
    utility_weight: float = Field(
        description="Weight of the probability in the ranking score; negative for unwanted actions."
    )
    is_wanted: bool = Field(default=True, description="False where less is better, as for hide.")


class LabelWeight(Frozen):
    """One entry of the label weight matrix M (TransAct, section 3.4): w_h = sum_a M[h, a] y_a."""

    head: str = Field(description="Head name (row).")
    label: str = Field(description="Head name of the label, or 'impression' (column).")
    weight: float = Field(ge=0, description="M[h, a].")


class UserWeight(Frozen):
    """One factor of a user's weight in the loss: w_u = w_state x w_location x ..."""

    feature: str = Field(description="A categorical feature of the table users.")
    value: str = Field(description="The value that is weighted.")
    weight: float = Field(ge=0, description="Factor; values that are not listed have 1.")


class FeatureConfig(Frozen):
    """What the model is told besides the sequence and the embeddings."""

    action_types: tuple[str, ...] = Field(
        min_length=1,
        max_length=127,  # as many as ids fit a byte
        description="Vocabulary of the sequence; the id is the index + 1, 0 pads.",
    )
    heads: tuple[Head, ...] = Field(
        min_length=1, description="Predicted actions; the first is the main head."
    )
    label_weights: tuple[LabelWeight, ...] = Field(
        default=(), description="Entries of M that differ from the default of 1 for 'impression'."
    )
    user_weights: tuple[UserWeight, ...] = Field(
        default=(), description="Factors of the users' weights in the loss."
    )
    categorical: tuple[CategoricalFeature, ...] = Field(default=(), description="Closed lists.")
    numeric: tuple[NumericFeature, ...] = Field(default=(), description="Computed numbers.")

    @model_validator(mode="after")
    def _heads_are_actions(self) -> Self:
        for head in self.heads:
            if head.action_type not in self.action_types:
                raise ValueError(
                    f"features.heads: head {head.name!r} needs action type {head.action_type!r}, "
                    f"which is not in features.action_types {self.action_types}"
                )
        for kind in ("action_types", "heads", "categorical", "numeric"):
            names = [getattr(entry, "name", entry) for entry in getattr(self, kind)]
            if len(set(names)) != len(names):
                raise ValueError(f"features.{kind}: names must be unique, found {names}")
        of_pins = [feature.name for feature in self.categorical_of("pins")]
        check_numeric(self.numeric, self.action_types, of_pins)
        return self

    @model_validator(mode="after")
    def _user_weights_have_features(self) -> Self:
        known = {f.name: f.values for f in self.categorical_of("users")}
        for entry in self.user_weights:
            if entry.value not in known.get(entry.feature, ()):
                raise ValueError(
                    f"features.user_weights: found {entry.feature}={entry.value!r}; expected a "
                    f"categorical feature of users and one of its values: {known}"
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
        """The numeric features that a snapshot holds: the baselines' and the recipe's."""
        return held_features(self.numeric)

    def categorical_of(self, table: str) -> tuple[CategoricalFeature, ...]:
        """Return the categorical features that live in one event log table, in order."""
        return tuple(feature for feature in self.categorical if feature.table == table)


class SnapshotConfig(Frozen):
    """Which rows become examples. All windows are half-open [start, end) and end on as_of."""

    embedding_version: str = Field(description="The pin embedding basis the model is built on.")
    training_days: int = Field(default=14, ge=1, le=366, description="Training window, days.")
    embargo_days: int = Field(default=1, ge=0, le=60, description="Gap before the holdout, days.")
    holdout_days: int = Field(default=7, ge=1, le=60, description="Holdout window, days.")
    label_window_hours: int = Field(
        default=24, ge=1, le=24 * 30, description="How long after an impression an action counts."
    )
    history_days: int = Field(
        default=180, ge=1, le=3660, description="Actions older than this before training are cut."
    )
    popularity_days: int = Field(default=28, ge=1, le=366, description="Trailing window, days.")
    core_days: int = Field(
        default=28, ge=1, description="An action of the main head this recent makes a user core."
    )
    num_shards: int = Field(default=8, ge=1, le=65536, description="Shards, by a hash of the user.")

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

    max_actions: int = Field(default=100, ge=1, le=2000, description="Newest actions used.")
    use_sequence_encoder: bool = Field(default=True, description="The TransAct encoder.")
    encoder_variant: Literal["default", "reference", "average"] = Field(
        default="default",
        description="'reference' is the published encoder: hidden positions have outputs, and a "
        "linear layer follows the max pool. 'average' is a mean over the actions, to measure both.",
    )
    encoder_kernel: Literal["auto", "plain", "cpu"] = Field(
        default="auto",
        description="What computes the encoder's layers, to the same numbers up to rounding. "
        "'plain' is PyTorch's operations. 'cpu' is hand-written for CPUs, one attention head and "
        "no dropout, and an error elsewhere. 'auto' is 'cpu' where that works, else 'plain'.",
    )
    use_candidate_fusion: bool = Field(
        default=True, description="The encoder's tokens hold the candidate; False to measure it."
    )
    use_action_types: bool = Field(
        default=True, description="The encoder tells action types apart; False to measure it."
    )
    use_action_ages: bool = Field(
        default=False,
        description="The encoder's tokens know how long ago each action was; not as published.",
    )
    use_sequence_matches: bool = Field(
        default=False,
        description="Candidate-to-sequence features: best cosine, exact matches by type.",
    )
    action_embedding_dim: int = Field(default=32, ge=1, description="Width of an action type.")
    num_layers: int = Field(default=2, ge=1, description="Encoder layers.")
    num_attention_heads: int = Field(default=1, ge=1, description="Attention heads.")
    feedforward_dim: int = Field(default=32, ge=1, description="Encoder FFN width.")
    dropout: float = Field(default=0.1, ge=0, lt=1, description="Encoder dropout.")
    first_k: int = Field(default=10, ge=1, description="Newest output columns beside the max pool.")
    time_window_mask_hours: float = Field(
        default=24.0, ge=0, description="T ~ U(0, this): younger actions are masked in training."
    )
    num_cross_layers: int = Field(default=2, ge=1, description="Full-rank DCN v2 layers.")
    mlp_dims: tuple[int, ...] = Field(default=(256, 128), description="Widths after the cross net.")
    mlp_dropout: float = Field(default=0.0, ge=0, lt=1, description="Dropout in the MLP.")
    categorical_dim: int = Field(default=8, ge=1, description="Width of a categorical feature.")


class TrainingConfig(Frozen):
    """How the challenger is fitted. A change here changes the model."""

    seed: int = Field(default=17, ge=0, description="Seed of weights, order, dropout and mask.")
    num_epochs: int = Field(default=2, ge=1, description="Passes over the training window.")
    batch_size: int = Field(default=2048, ge=1, description="Candidates per global batch.")
    learning_rate: float = Field(default=0.0048, gt=0, description="Peak rate of Adam.")
    weight_decay: float = Field(default=0.0, ge=0, description="Decoupled weight decay.")
    warmup_steps: int = Field(default=5000, ge=0, description="Linear warm-up, then cosine.")
    gradient_clip: float = Field(default=1.0, gt=0, description="Largest gradient norm.")
    negative_keep_fraction: float = Field(
        default=1.0, gt=0, le=1, description="Share of action-less impressions kept in training."
    )
    precision: Literal["32-true", "bf16-mixed", "64-true"] = Field(
        default="32-true",
        description="Arithmetic of training; 64-true, slow, compares trainings beyond rounding.",
    )
    use_compile: bool = Field(
        default=False, description="torch.compile, for GPUs; on a CPU it needs a C++ compiler."
    )
    checkpoint_every_steps: int = Field(default=200, ge=1, description="Steps between checkpoints.")


class RecipeRef(Frozen):
    """Which recipe something was made by; it stands in every lineage, beside the code's identity.

    The name is what the recipe calls itself, and several may share it. The digest tells recipes
    apart, and the reference says where the recipe was read.
    """

    name: str = Field(description="`RunConfig.recipe`.")
    digest: str = Field(description="`RunConfig.recipe_digest`.")
    reference: str = Field(description="A name in pipelines/recipes, module:function or a URI.")

    @property
    def label(self) -> str:
        """Return 'name (digest)', for people, and where a recipe from outside was read."""
        origin = "" if self.reference == self.name else f", {self.reference}"
        return f"{self.name} ({self.digest[:12]}{origin})"


class RunConfig(Frozen):
    """Everything that decides the result of a cycle, saved with it."""

    recipe: str = Field(description="Name of the recipe that made this value.")
    source: str = Field(
        default="",
        exclude_if=lambda source: not source,  # A recipe that is shown can be saved as a file.
        description="Where a recipe from outside was read: module:function, or its file's URI. "
        "Set by who reads it; '' for the recipes of this project.",
    )
    features: FeatureConfig
    snapshot: SnapshotConfig
    model: ModelConfig
    training: TrainingConfig
    data_gate: DataGateConfig
    model_gate: ModelGateConfig
    serving: ServingConfig = ServingConfig()
    promotion: PromotionConfig = Field(
        default=PromotionConfig(), description="What a promotion needs besides the verdict."
    )

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
        parts["model"].pop("encoder_kernel")
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
