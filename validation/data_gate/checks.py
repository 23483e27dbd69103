"""The expectations of the data gate: what is expected of a snapshot, and how bad a failure is.

A CRITICAL failure stops the cycle before training; a WARNING is reported and lets the cycle go on.
Shift against the last accepted snapshot is judged by its size (relative change, PSI) and never by a
p-value, because with millions of rows every difference is "significant" and with hundreds none is.
A value that could not be measured is NaN and never 0. Rules of single rows come from `rows`, other
bounds from `pipelines.contracts.data_rules` and the recipe. Not for running the expectations
(`validation.data_gate.gx_runner`).
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np

from pipelines.contracts import data_rules as bounds
from pipelines.contracts.artifacts import Severity, Snapshot
from pipelines.contracts.config import DataGateConfig, FeatureConfig
from pipelines.contracts.schemas import PINS_FILE, SPLIT_HOLDOUT, SPLIT_TRAINING
from pipelines.contracts.time import DAY_MS
from validation.data_gate.gx_runner import NAN, Check, Unit
from validation.data_gate.rows import RULES
from validation.data_gate.snapshot_profile import Measures, Reference, SnapshotProfile

WHOLE = "snapshot"
"""Partition of a measure that is about the whole snapshot."""
NO_REFERENCE = "no earlier accepted snapshot to compare with"
FEWEST_ACTIONS = bounds.UNKNOWN_REQUESTS.fewest
_CRITICAL, _WARNING = Severity.CRITICAL, Severity.WARNING


@dataclass(frozen=True)
class Judged:
    """A snapshot, what was measured of it, and what it is held against."""

    config: DataGateConfig
    snapshot: Snapshot
    profile: SnapshotProfile
    reference: Reference | None  # The last accepted snapshot; None in the first cycle.

    @property
    def before(self) -> SnapshotProfile:
        """The profile of the last accepted snapshot; an empty one in the first cycle."""
        return self.reference.profile if self.reference else SnapshotProfile()

    @property
    def why_no_shift(self) -> str:
        """Why shift against the last accepted snapshot cannot be judged, or nothing."""
        if self.reference is None:
            return NO_REFERENCE
        if self.before.unmeasured_shards:
            return "the last accepted snapshot can no longer be read or measured"
        if self.snapshot.features.main_head.name not in self.reference.snapshot.features.head_names:
            return "the last accepted snapshot has another main head"
        least = self.config.min_rows_for_shift
        fewest = min(int(known.measures.examples.sum()) for known in (self.profile, self.before))
        few = f"{fewest:,} examples, fewer than min_rows_for_shift = {least:,}"
        return few if fewest < least else ""


def snapshot_checks(judged: Judged) -> tuple[Check, ...]:
    """Return the checks of volumes, rates and coverage, and of change.

    Where shards could not be measured all of them are NaN, because the others say nothing of all.
    """
    checks = (*_volumes(judged), *_days_and_events(judged), *_rates(judged))
    if not judged.profile.unmeasured_shards:
        return checks
    return tuple(replace(each, values=dict.fromkeys(each.values, NAN)) for each in checks)


def row_checks(snapshot: Snapshot, profile: SnapshotProfile) -> tuple[Check, ...]:
    """Return the checks that no row breaks a rule, by shard."""
    num_types, pins = len(snapshot.features.action_types), {PINS_FILE: profile.pins}
    parts = {"files": pins | profile.shards, "shards": profile.shards, "pins": pins}
    return tuple(
        Check(
            rule.name,
            rule.severity,
            rule.description.format(num_types=num_types),
            rule.of,
            {part: broken.counts[rule.name] for part, broken in parts[rule.of].items()},
            minimum=0,
            maximum=0,
            phrases={
                part: broken.details[rule.name]
                for part, broken in parts[rule.of].items()
                if rule.name in broken.details
            },
        )
        for rule in RULES
    )


def _whole(
    name: str, severity: Severity, description: str, value: float, unit: Unit,
    minimum: float | None = None, maximum: float | None = None, not_judged: str = "",
) -> Check:  # fmt: skip
    """Return a check of one number of the whole snapshot."""
    values = {WHOLE: float(value)}
    return Check(name, severity, description, WHOLE, values, unit, minimum, maximum, not_judged)


def _volumes(judged: Judged) -> tuple[Check, ...]:
    """Return the checks of what there has to be enough of, and of changes since it was accepted."""
    config, measures = judged.config, judged.profile.measures
    then, target = judged.before.measures, judged.snapshot.features.main_head.name

    def changed(name: str, what: str, now: float, before: float, most: float) -> Check:
        said = f"Change of the {what} against the last accepted snapshot."
        change = now / before - 1.0 if before else NAN
        return _whole(name, _CRITICAL, said, change, "change", -most, most, judged.why_no_shift)

    examples, requests = measures.examples.sum(), measures.requests
    return (
        _whole("pin_embeddings_differ", _CRITICAL,
               "Pins do not share one embedding (1 - |mean|^2 / mean square).",
               judged.profile.pin_spread, "number", bounds.PIN_SPREAD.critical),
        _whole("enough_training_requests", _CRITICAL, "Requests in the training window.",
               requests[SPLIT_TRAINING], "count", config.min_training_requests),
        _whole("enough_holdout_requests", _CRITICAL, "Requests in the holdout window.",
               requests[SPLIT_HOLDOUT], "count", config.min_holdout_requests),
        changed("row_count_shift", "number of examples", examples, then.examples.sum(),
                config.max_row_count_change),
        changed("target_label_rate_shift", "target label rate", measures.label_rate(target),
                then.label_rate(target), config.max_label_rate_change),
    )  # fmt: skip


def _days_and_events(judged: Judged) -> tuple[Check, ...]:
    """Return the checks of each day, and of what the log's actions name."""
    measures, events = judged.profile.measures, judged.snapshot.event_counts
    rates = rate_shares(measures, judged.snapshot.features)
    missing, days = 1.0 if rates else NAN, {}  # each day that either window touches
    for name in ("training", "holdout"):
        window = getattr(judged.snapshot, name)
        for day in range(window.start_ms // DAY_MS, -(-window.end_ms // DAY_MS)):
            date = datetime.fromtimestamp(day * DAY_MS / 1000, tz=UTC).date()
            days[f"{date} ({name})"] = rates.get(day, missing)
    has_examples = bool(measures.examples.any())
    unknown = _share(events.num_naming_unknown, events.num_naming * has_examples)
    early = _share(events.num_early, events.num_near * has_examples)
    few = f"fewer than {FEWEST_ACTIONS} actions name"
    naming = "" if events.num_naming >= FEWEST_ACTIONS else f"{few} a request"
    is_near = events.num_near >= max(FEWEST_ACTIONS, bounds.NAMELESS * events.num_naming)
    near = "" if is_near else f"{few} none, or next to those that name one"
    named = "Actions that name a request which the log does not have of their user."
    return (
        Check("every_day_has_labels", _CRITICAL,
              "No day's label rate is near zero once it was launched: a share of the median day.",
              "days", days, "share", bounds.LABEL_RATE_BY_MEDIAN.critical),
        _whole("most_requests_are_known", _CRITICAL, named, unknown, "share",
               maximum=bounds.UNKNOWN_REQUESTS.critical, not_judged=naming),
        _whole("requests_are_known", _WARNING, named, unknown, "share",
               maximum=bounds.UNKNOWN_REQUESTS.warning, not_judged=naming),
        _whole("actions_follow_impressions", _WARNING,
               "Actions without a request whose pin the user was shown only afterwards.",
               early, "share", maximum=bounds.EARLY_ACTIONS.warning, not_judged=near),
    )  # fmt: skip


def _rates(judged: Judged) -> tuple[Check, ...]:
    """Return the checks of label rates, and of how much sequences, pins and categories cover."""
    config, measures = judged.config, judged.profile.measures
    features = judged.snapshot.features
    target = features.main_head.name
    low, high = config.min_positive_share, config.max_positive_share
    # Where no shard could be measured, the number of positives is not known.
    positives = {
        head: float(measures.positives[head][SPLIT_TRAINING]) if head in measures.positives else NAN
        for head in features.head_names
    }
    codes = {each.name: measures.histograms.get(each.name) for each in features.categorical}
    unknown = {name: _share(found[0], found.sum()) for name, found in sorted(codes.items())
               if found is not None}  # fmt: skip
    return (
        _whole("target_label_rate", _CRITICAL, f"Training examples with a {target}.",
               measures.label_rate(target, SPLIT_TRAINING), "share", low, high),
        _whole("target_label_rate_holdout", _CRITICAL, f"Holdout examples with a {target}.",
               measures.label_rate(target, SPLIT_HOLDOUT), "share", low, high),
        Check("every_head_has_positives", _WARNING,
              "Each head occurs in training, or it learns to predict nothing.",
              "heads", positives, "count", minimum=1),
        _whole("sequence_coverage", _CRITICAL, "Requests with at least one earlier action.",
               _share(measures.with_sequence, measures.requests.sum()), "share",
               config.min_sequence_share),
        _whole("embedding_coverage", _CRITICAL,
               "Examples whose candidate has an all-zero embedding.",
               _share(measures.zero_embeddings, measures.examples.sum()), "share",
               maximum=config.max_zero_embedding_share),
        Check("known_categories", _WARNING, "Values outside a categorical feature's closed list.",
              "categories", unknown, "share", maximum=config.max_unknown_category_share,
              not_judged="" if codes else "the recipe has no categorical feature"),
    )  # fmt: skip


def rate_shares(measures: Measures, features: FeatureConfig) -> dict[int, float]:
    """Return, by day, the lowest label rate of a head against the head's median day.

    A head counts on a day on which its median rate would give enough positives. But for the main
    head, it does not count on the days before its first positive on which any head has positives: a
    new action type was not launched yet, and nothing is missing.
    """
    days = sorted(day for day, (examples, *_) in measures.days.items() if examples)
    if not days:
        return {}
    rows = np.stack([measures.days[day] for day in days])
    examples, positives = rows[:, :1], rows[:, 1:]
    rates = positives / examples
    usual = np.median(rates, axis=0)
    is_launched = (np.cumsum(positives, axis=0) > 0) | ~positives.any(axis=1, keepdims=True)
    is_launched[:, features.head_names.index(features.main_head.name)] = True
    is_telling = is_launched & (usual * examples >= bounds.LABEL_RATE_BY_MEDIAN.fewest)
    shares = np.divide(rates, usual, out=np.ones_like(rates), where=is_telling)
    return dict(zip(days, shares.min(axis=1).tolist(), strict=True))


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole else NAN
