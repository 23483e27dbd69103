"""The expectations of the data gate: what is expected of a snapshot, and how bad a failure is.

A CRITICAL failure stops the cycle before training; a WARNING is reported and lets the cycle go on.
Shift against the last accepted snapshot is judged by its size (relative change, PSI) and never by a
p-value, because with millions of rows every difference is "significant" and with hundreds none is.
Rules of single rows come from `rows`, other bounds from `pipelines.contracts.data_rules` and
the recipe. Not for measuring (`validation.data_gate.judged_tables`), nor for running the
expectations (`validation.data_gate.gx_runner`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from pipelines.contracts import data_rules as bounds
from pipelines.contracts.artifacts import EventCounts, Severity, Snapshot
from pipelines.contracts.config import DataGateConfig
from validation.data_gate.canaries import CHANGED
from validation.data_gate.rows import RULES
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

FEWEST_ACTIONS = bounds.UNKNOWN_REQUESTS.fewest


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
        *_row_checks(snapshot),
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


def _row_checks(snapshot: Snapshot) -> tuple[Check, ...]:
    """Return the checks that no row breaks a rule, and that pins do not share one embedding."""
    num_types = len(snapshot.features.action_types)
    return (
        *(
            Check(rule.name, rule.severity, rule.description.format(num_types=num_types),
                  rule.of, rule.name, minimum=0, maximum=0)
            for rule in RULES
        ),
        Check("pin_embeddings_differ", Severity.CRITICAL,
              "Pins do not share one embedding (1 - |mean|^2 / mean square).",
              "snapshot", "pin_spread", "number", minimum=bounds.PIN_SPREAD.critical),
    )  # fmt: skip


def _volume_checks(config: DataGateConfig) -> tuple[Check, ...]:
    return (
        Check("enough_training_requests", Severity.CRITICAL, "Requests in the training window.",
              "snapshot", "training_requests", "count", minimum=config.min_training_requests),
        Check("enough_holdout_requests", Severity.CRITICAL, "Requests in the holdout window.",
              "snapshot", "holdout_requests", "count", minimum=config.min_holdout_requests),
        Check("every_day_is_there", Severity.WARNING,
              "Each day has requests: a share of the median day's.",
              "days", "share_of_median_day", "share", minimum=bounds.ROWS_OF_A_DAY.warning),
        Check("every_day_has_labels", Severity.CRITICAL,
              "No day's label rate is near zero once it was launched: a share of the median day.",
              "days", "share_of_launched_rate", "share",
              minimum=bounds.LABEL_RATE_BY_MEDIAN.critical),
        Check("label_rate_of_each_day", Severity.WARNING,
              "Each day's label rate: a share of the head's median day.",
              "days", "share_of_median_rate", "share", minimum=bounds.LABEL_RATE_BY_MEDIAN.warning),
        Check("few_duplicate_impressions", Severity.WARNING,
              "Impressions that the log holds twice (dropped from the snapshot).",
              "snapshot", "duplicate_share", "share", maximum=bounds.REPEATED_IMPRESSIONS.warning),
        Check("exploration_is_steady", Severity.WARNING,
              "Share of randomised traffic in the holdout minus that in training.",
              "snapshot", "exploration_gap", "change",
              minimum=-bounds.EXPLORATION_GAP.warning, maximum=bounds.EXPLORATION_GAP.warning),
    )  # fmt: skip


def _event_checks(events: EventCounts) -> tuple[Check, ...]:
    few = "fewer than {} actions {}".format
    naming = "" if events.num_naming >= FEWEST_ACTIONS else few(FEWEST_ACTIONS, "name a request")
    near = "" if events.num_near >= FEWEST_ACTIONS else few(FEWEST_ACTIONS, "name none")
    return (
        Check("most_requests_are_known", Severity.CRITICAL,
              "Actions that name a request which the log does not have of their user.",
              "snapshot", "unknown_request_share", "share",
              maximum=bounds.UNKNOWN_REQUESTS.critical, not_judged=naming),
        Check("requests_are_known", Severity.WARNING,
              "Actions that name a request which the log does not have of their user.",
              "snapshot", "unknown_request_share", "share", maximum=bounds.UNKNOWN_REQUESTS.warning,
              not_judged=naming),
        Check("actions_follow_impressions", Severity.WARNING,
              "Actions without a request whose pin the user was shown only afterwards.",
              "snapshot", "early_share", "share", maximum=bounds.EARLY_ACTIONS.warning,
              not_judged=near),
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
              "snapshot", "pin_norm_change", "change",
              -bounds.NORM_CHANGE.warning, bounds.NORM_CHANGE.warning, norm_not_judged),
    )  # fmt: skip


def _canary_checks(not_judged: str) -> tuple[Check, ...]:
    return (
        Check("embeddings_as_accepted", Severity.CRITICAL,
              "Embeddings that change under an unchanged version, of those that were kept.",
              "canaries", CHANGED, "share", maximum=bounds.CHANGED_EMBEDDINGS.critical,
              not_judged=not_judged),
        Check("every_embedding_as_accepted", Severity.WARNING,
              "Embeddings that change under an unchanged version, of those that were kept.",
              "canaries", CHANGED, "share",
              maximum=bounds.CHANGED_EMBEDDINGS.warning, not_judged=not_judged),
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
