"""The expectations of the data gate: what is expected of a snapshot, and how bad a failure is.

A CRITICAL failure stops the cycle before training; a WARNING is reported and lets the cycle go on.
Shift against the last accepted snapshot is judged by its size (relative change, PSI) and never by a
p-value, because with millions of rows every difference is "significant" and with hundreds none is.
Not for measuring (`validation.data_gate.judged_tables`), nor for running the expectations
(`validation.data_gate.gx_runner`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from pipelines.contracts.artifacts import EventCounts, Severity, Snapshot
from pipelines.contracts.config import DataGateConfig
from pipelines.contracts.features.catalogue import BOUNDS
from validation.data_gate.canary_checks import CHANGED, LARGEST_CHANGED_SHARE
from validation.data_gate.pin_checks import NORM_RANGE
from validation.data_gate.shifts import (
    FEATURE,
    FEWEST_EARLIER,
    FEWEST_POSITIVES,
    MOVE,
    RATE,
    STEADY,
)
from validation.data_gate.snapshot_profile import Reference, SnapshotProfile

Unit = Literal["rows", "count", "share", "change", "number", "limits", "risk"]

FILES_MATCH = "files_match_manifest"
"""The expectation that fails where a snapshot is damaged: built again, it is met."""
LOWEST_DAY_SHARE = 0.1
"""Share of the median day's requests; a day with fewer lacks a partition of the event log."""
LOWEST_RATE_SHARE, LOW_RATE_SHARE = 0.02, 0.3
"""A day's label rate as a share of the median day's: below the first, actions of it are missing;
below the second, a person must look."""
LARGEST_UNKNOWN_SHARE, LARGE_UNKNOWN_SHARE = 0.5, 0.05
"""Actions that name a request which the log does not have: above the first, most labels are lost;
above the second, a person must look."""
LARGEST_EARLY_SHARE = 0.05
"""Actions without a request whose pin the user was shown only afterwards."""
FEWEST_ACTIONS = 20
"""Shares of fewer actions say nothing."""
LARGEST_DUPLICATE_SHARE = 0.05
"""Share of the impressions that the event log may hold twice."""
LARGEST_EXPLORATION_GAP = 0.05
"""Difference between the two windows' shares of randomised traffic."""
LARGEST_NORM_CHANGE = 0.1
"""Relative change of the mean length; an embedding version is a fixed basis, so lengths stay."""
LOWEST_PIN_SPREAD = 1e-3
"""Pins with a smaller spread have practically one embedding."""


@dataclass(frozen=True)
class Check:
    """One expectation: the values of a column lie between two bounds, in every partition."""

    name: str
    severity: Severity
    description: str
    table: str  # of `judged_tables.make_tables`
    column: str
    unit: Unit = "rows"
    minimum: float | None = None
    maximum: float | None = None
    # Why the expectation cannot be judged this time; if it says so, the expectation counts as met.
    not_judged: str = ""

    @property
    def expected(self) -> str:
        """The bounds as text."""
        if self.unit == "rows":
            return "no such row"
        if self.unit == "limits":
            return "within what earlier days and snapshots let expect"
        if self.unit == "risk":
            return "less than what most likely harms a model"
        low, high = (
            None if bound is None else format_value(bound, self.unit)
            for bound in (self.minimum, self.maximum)
        )
        if low is None:
            return f"at most {high}"
        return f"at least {low}" if high is None else f"{low} to {high}"


def format_value(value: float, unit: Unit) -> str:
    """Return a value as people read it."""
    if unit in ("rows", "count"):
        return f"{value:,.0f}"
    if unit == "limits":
        return f"{value:.2g} times the limit"
    if unit == "risk":
        return f"{value:.2g} times what most likely harms a model"
    if unit == "share":
        return f"{value * 100:.4g} %"
    # The value is rounded first, because a millionth of a percent is noise. Adding 0.0 turns the
    # -0.0 that rounding may give into 0.
    return f"{round(value * 100, 3) + 0.0:+.4g} %" if unit == "change" else f"{value:.4g}"


def make_checks(
    config: DataGateConfig,
    snapshot: Snapshot,
    profile: SnapshotProfile,
    reference: Reference | None,
    tables: Mapping[str, pd.DataFrame],
    canaries_not_judged: str,
) -> tuple[Check, ...]:
    """Return all expectations, absolute ones first.

    Args:
        config: Thresholds.
        snapshot: The manifest of what is judged.
        profile: Its profile.
        reference: The last accepted snapshot; None in the first cycle.
        tables: What is judged; a table of shifts without rows has nothing that can be judged yet.
        canaries_not_judged: Why no embedding was compared, or nothing.
    """
    if reference is None:
        not_judged = other_basis = "no earlier accepted snapshot to compare with"
    else:
        not_judged = _why_not_judged(config, snapshot, profile, reference)
        is_same_basis = reference.snapshot.embedding_version == snapshot.embedding_version
        other_basis = "" if is_same_basis else "the embedding version changed, so lengths may too"
    return (
        *_file_checks(),
        *_shard_checks(snapshot),
        *_pin_checks(),
        *_volume_checks(config),
        *_event_checks(snapshot.event_counts),
        *_rate_checks(config, snapshot),
        *_canary_checks(canaries_not_judged),
        *_shift_checks(config, not_judged, not_judged or other_basis),
        *_usual_shift_checks(tables, not_judged),
    )


def _why_not_judged(
    config: DataGateConfig,
    snapshot: Snapshot,
    profile: SnapshotProfile,
    reference: Reference,
) -> str:
    """Return why shift against the last accepted snapshot cannot be judged, or nothing."""
    if reference.profile.unmeasured_shards:
        return "the last accepted snapshot can no longer be read or measured"
    if snapshot.features.main_head.name not in reference.snapshot.features.head_names:
        return "the last accepted snapshot has another main head"
    fewest = min(int(known.measures.examples.sum()) for known in (profile, reference.profile))
    if fewest < config.min_rows_for_shift:
        return f"{fewest:,} examples, fewer than min_rows_for_shift = {config.min_rows_for_shift:,}"
    return ""


def _rows(table: str, name: str, column: str, description: str) -> Check:
    """Return a critical check that no row breaks a rule."""
    return Check(name, Severity.CRITICAL, description, table, column, minimum=0, maximum=0)


def _file_checks() -> tuple[Check, ...]:
    return (
        _rows("files", FILES_MATCH, "altered_files",
              "Every file is there with the sha256 of the manifest."),
        _rows("files", "schema", "schema_problems",
              "Every file can be read and has the contract's columns and types."),
        _rows("files", "no_nulls", "null_values", "No value is null."),
    )  # fmt: skip


def _shard_checks(snapshot: Snapshot) -> tuple[Check, ...]:
    num_types = len(snapshot.features.action_types)
    rules = (
        ("counts_match_manifest", "count_mismatches", "Row counts agree with the manifest."),
        ("references_resolve", "bad_references", "Pins and users that rows point at exist."),
        ("pointers_inside_block", "bad_pointers",
         "A request points into its own user's block of the timeline."),
        ("requests_own_examples", "bad_example_ranges",
         "Each example belongs to exactly one request, each request has one or more."),
        ("unique_requests", "duplicate_requests", "A request occurs once."),
        ("unique_candidates", "duplicate_candidates", "A pin is a request's candidate once."),
        ("action_vocabulary", "unknown_action_types",
         f"Action type ids are 1 to {num_types}; 0 is padding and never an action."),
        ("action_times", "bad_action_times",
         "An action is known no earlier than it happened, and before as_of."),
        ("timeline_order", "disordered_actions", "A user's actions are in the order known."),
        ("no_future_actions", "future_actions",
         "No request sees an action that was known only at or after it."),
        ("no_missed_actions", "missed_actions",
         "A request's pointer reaches the newest action known before it."),
        ("requests_in_window", "requests_outside_window",
         "Training and holdout requests lie in their half-open windows."),
        ("user_rows_point_in_time", "bad_user_rows",
         "A request's user row is its own user's and not from the future."),
        ("labels_are_binary", "bad_labels", "Labels are 0 or 1."),
        ("numeric_features_in_range", "bad_numbers",
         f"Numeric features are finite, and within the bounds of their scale "
         f"({BOUNDS['log1p'][0]:g} to {BOUNDS['log1p'][1]:g} for a log1p); flags are 0 or 1."),
        ("category_codes_in_range", "bad_codes", "Codes are 0 to the number of known values."),
        ("user_embeddings_finite", "bad_user_embeddings", "User embeddings are finite."),
    )  # fmt: skip
    checks = tuple(_rows("shards", *rule) for rule in rules)
    positions = Check("positions_not_negative", Severity.WARNING, "Positions count from 0.",
                      "shards", "bad_positions", minimum=0, maximum=0)  # fmt: skip
    return (*checks, positions)


def _pin_checks() -> tuple[Check, ...]:
    low, high = NORM_RANGE
    return (
        _rows("pins", "pin_embeddings_finite", "bad_pin_embeddings",
              "Pin embeddings have no NaN and no infinity."),
        _rows("pins", "pin_embedding_norm", "bad_embedding_norms",
              f"Pin embeddings are zero or have a length of {low:g} to {high:g}."),
        _rows("pins", "unique_pins", "disordered_pins", "Pins are sorted by id, each once."),
        _rows("pins", "pin_codes_in_range", "bad_pin_codes",
              "Codes of pin features are 0 to the number of known values."),
        Check("pin_embeddings_differ", Severity.CRITICAL,
              "Pins do not share one embedding (1 - |mean|^2 / mean square).",
              "snapshot", "pin_spread", "number", minimum=LOWEST_PIN_SPREAD),
    )  # fmt: skip


def _volume_checks(config: DataGateConfig) -> tuple[Check, ...]:
    return (
        Check("enough_training_requests", Severity.CRITICAL, "Requests in the training window.",
              "snapshot", "training_requests", "count", minimum=config.min_training_requests),
        Check("enough_holdout_requests", Severity.CRITICAL, "Requests in the holdout window.",
              "snapshot", "holdout_requests", "count", minimum=config.min_holdout_requests),
        Check("every_day_is_there", Severity.WARNING,
              "Each day has requests: a share of the median day's.",
              "days", "share_of_median_day", "share", minimum=LOWEST_DAY_SHARE),
        Check("every_day_has_labels", Severity.CRITICAL,
              "No day's label rate is near zero once it was launched: a share of the median day.",
              "days", "share_of_launched_rate", "share", minimum=LOWEST_RATE_SHARE),
        Check("label_rate_of_each_day", Severity.WARNING,
              "Each day's label rate: a share of the head's median day.",
              "days", "share_of_median_rate", "share", minimum=LOW_RATE_SHARE),
        Check("few_duplicate_impressions", Severity.WARNING,
              "Impressions that the log holds twice (dropped from the snapshot).",
              "snapshot", "duplicate_share", "share", maximum=LARGEST_DUPLICATE_SHARE),
        Check("exploration_is_steady", Severity.WARNING,
              "Share of randomised traffic in the holdout minus that in training.",
              "snapshot", "exploration_gap", "change",
              minimum=-LARGEST_EXPLORATION_GAP, maximum=LARGEST_EXPLORATION_GAP),
    )  # fmt: skip


def _event_checks(events: EventCounts) -> tuple[Check, ...]:
    few = "fewer than {} actions {}".format
    naming = "" if events.num_naming >= FEWEST_ACTIONS else few(FEWEST_ACTIONS, "name a request")
    near = "" if events.num_near >= FEWEST_ACTIONS else few(FEWEST_ACTIONS, "name none")
    return (
        Check("most_requests_are_known", Severity.CRITICAL,
              "Actions that name a request which the log does not have of their user.",
              "snapshot", "unknown_request_share", "share", maximum=LARGEST_UNKNOWN_SHARE,
              not_judged=naming),
        Check("requests_are_known", Severity.WARNING,
              "Actions that name a request which the log does not have of their user.",
              "snapshot", "unknown_request_share", "share", maximum=LARGE_UNKNOWN_SHARE,
              not_judged=naming),
        Check("actions_follow_impressions", Severity.WARNING,
              "Actions without a request whose pin the user was shown only afterwards.",
              "snapshot", "early_share", "share", maximum=LARGEST_EARLY_SHARE, not_judged=near),
    )  # fmt: skip


def _rate_checks(config: DataGateConfig, snapshot: Snapshot) -> tuple[Check, ...]:
    target = snapshot.features.main_head.name
    low, high = config.min_positive_share, config.max_positive_share
    has_categories = bool(snapshot.features.categorical)
    return (
        Check("target_label_rate", Severity.CRITICAL, f"Training examples with a {target}.",
              "snapshot", "target_rate_training", "share", minimum=low, maximum=high),
        Check("target_label_rate_holdout", Severity.CRITICAL, f"Holdout examples with a {target}.",
              "snapshot", "target_rate_holdout", "share", minimum=low, maximum=high),
        Check("every_head_has_positives", Severity.WARNING,
              "Each head occurs in training, or it learns to predict nothing.",
              "heads", "training_positives", "count", minimum=1),
        Check("sequence_coverage", Severity.CRITICAL, "Requests with at least one earlier action.",
              "snapshot", "sequence_share", "share", minimum=config.min_sequence_share),
        Check("embedding_coverage", Severity.CRITICAL,
              "Examples whose candidate has an all-zero embedding.",
              "snapshot", "zero_embedding_share", "share",
              maximum=config.max_zero_embedding_share),
        Check("known_categories", Severity.WARNING,
              "Values outside a categorical feature's closed list.",
              "categories", "unknown_share", "share",
              maximum=config.max_unknown_category_share,
              not_judged="" if has_categories else "the recipe has no categorical feature"),
    )  # fmt: skip


def _shift_checks(
    config: DataGateConfig, not_judged: str, norm_not_judged: str
) -> tuple[Check, ...]:
    label, rows = config.max_label_rate_change, config.max_row_count_change
    return (
        Check("row_count_shift", Severity.CRITICAL,
              "Change of the number of examples against the last accepted snapshot.",
              "snapshot", "row_count_change", "change", -rows, rows, not_judged),
        Check("target_label_rate_shift", Severity.CRITICAL,
              "Change of the target label rate against the last accepted snapshot.",
              "snapshot", "target_rate_change", "change", -label, label, not_judged),
        Check("embedding_norm_shift", Severity.WARNING,
              "Change of the pins' mean embedding length against the last accepted snapshot.",
              "snapshot", "pin_norm_change", "change", -LARGEST_NORM_CHANGE, LARGEST_NORM_CHANGE,
              norm_not_judged),
    )  # fmt: skip


def _canary_checks(not_judged: str) -> tuple[Check, ...]:
    return (
        Check("embeddings_as_accepted", Severity.CRITICAL,
              "Embeddings that change under an unchanged version, of those that were kept.",
              "canaries", CHANGED, "share", maximum=LARGEST_CHANGED_SHARE, not_judged=not_judged),
        Check("every_embedding_as_accepted", Severity.WARNING,
              "Embeddings that change under an unchanged version, of those that were kept.",
              "canaries", CHANGED, "share", maximum=0.0, not_judged=not_judged),
    )  # fmt: skip


def _usual_shift_checks(tables: Mapping[str, pd.DataFrame], not_judged: str) -> tuple[Check, ...]:
    """Return the checks whose limits come from earlier shifts."""
    descriptions = {
        STEADY: "Label rate in the holdout against training, per head.",
        RATE: "Change of each head's label rate against the last accepted snapshot.",
        FEATURE: "Population stability index of each feature against the last accepted snapshot.",
        MOVE: "How far each number's quantiles moved from the last accepted snapshot's, in "
        "standard deviations.",
    }
    few = f"fewer than {FEWEST_EARLIER} earlier shifts are known"
    reasons = {
        STEADY: f"{few}, and no head has {FEWEST_POSITIVES} positives in a window",
        RATE: not_judged or f"{few}, and no head has {FEWEST_POSITIVES} positives",
        FEATURE: not_judged or few,
        MOVE: not_judged or few,
    }
    return tuple(
        Check(name, Severity.WARNING, description, name, name, "limits", maximum=1.0,
              not_judged="" if len(tables[name]) and not (name != STEADY and not_judged)
              else reasons[name])
        for name, description in descriptions.items()
    )  # fmt: skip
