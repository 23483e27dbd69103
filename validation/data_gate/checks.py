"""The expectations of the data gate: what is expected of a snapshot, and how bad a failure is.

A CRITICAL failure stops the cycle before training; a WARNING is reported and lets the cycle go on.
Shift against the last accepted snapshot is judged by its size (relative change, PSI) and never by a
p-value, because with millions of rows every difference is "significant" and with hundreds none is.
A value that could not be measured is NaN and never 0. Rules of single rows come from `rows`, other
bounds from `pipelines.contracts.data_rules` and the recipe. Not for running the expectations
(`validation.data_gate.gx_runner`).
"""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np

from pipelines.contracts import data_rules as bounds
from pipelines.contracts.artifacts import Severity, Snapshot
from pipelines.contracts.config import DataGateConfig
from pipelines.contracts.schemas import PINS_FILE, SPLIT_HOLDOUT, SPLIT_TRAINING
from pipelines.contracts.time import DAY_MS
from validation.data_gate.gx_runner import NAN, Check
from validation.data_gate.rows import RULES
from validation.data_gate.snapshot_profile import Measures, Reference, SnapshotProfile

WHOLE = "snapshot"
"""Partition of a measure that is about the whole snapshot."""
NO_REFERENCE = "no earlier accepted snapshot to compare with"
FEWEST_ACTIONS = bounds.UNKNOWN_REQUESTS.fewest
_CRITICAL, _WARNING = Severity.CRITICAL, Severity.WARNING


def row_checks(snapshot: Snapshot, profile: SnapshotProfile) -> tuple[Check, ...]:
    """Return the checks that no row breaks a rule, by shard."""
    num_types, pins = len(snapshot.features.action_types), {PINS_FILE: profile.pins}
    parts = {"files": profile.by_partition, "shards": profile.shards, "pins": pins}
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


def volume_checks(
    config: DataGateConfig, snapshot: Snapshot, profile: SnapshotProfile
) -> tuple[Check, ...]:
    """Return the checks of what there has to be enough of, on each day and over all of them."""
    measures, events = profile.measures, snapshot.event_counts
    examples, dropped = int(measures.examples.sum()), snapshot.num_duplicate_impressions
    training, holdout = measures.requests[SPLIT_TRAINING], measures.requests[SPLIT_HOLDOUT]
    exploring = [
        _share(*pair) for pair in zip(measures.exploration, measures.examples, strict=True)
    ]
    unknown = _share(events.num_naming_unknown, events.num_naming if examples else 0)
    early = _share(events.num_early, events.num_near if examples else 0)
    requests, rates, launched = _shares_of_days(snapshot, measures)
    few = f"fewer than {FEWEST_ACTIONS} actions name"
    naming = "" if events.num_naming >= FEWEST_ACTIONS else f"{few} a request"
    near = "" if events.num_near >= FEWEST_ACTIONS else f"{few} none"
    return _whole_where_measured(profile, (
        Check("pin_embeddings_differ", _CRITICAL,
              "Pins do not share one embedding (1 - |mean|^2 / mean square).",
              WHOLE, {WHOLE: profile.pin_spread}, "number", minimum=bounds.PIN_SPREAD.critical),
        Check("enough_training_requests", _CRITICAL, "Requests in the training window.",
              WHOLE, {WHOLE: training}, "count", minimum=config.min_training_requests),
        Check("enough_holdout_requests", _CRITICAL, "Requests in the holdout window.",
              WHOLE, {WHOLE: holdout}, "count", minimum=config.min_holdout_requests),
        Check("every_day_is_there", _WARNING,
              "Each day has requests: a share of the median day's.",
              "days", requests, "share", minimum=bounds.ROWS_OF_A_DAY.warning),
        Check("every_day_has_labels", _CRITICAL,
              "No day's label rate is near zero once it was launched: a share of the median day.",
              "days", launched, "share", minimum=bounds.LABEL_RATE_BY_MEDIAN.critical),
        Check("label_rate_of_each_day", _WARNING,
              "Each day's label rate: a share of the head's median day.",
              "days", rates, "share", minimum=bounds.LABEL_RATE_BY_MEDIAN.warning),
        Check("few_duplicate_impressions", _WARNING,
              "Impressions that the log holds twice (dropped from the snapshot).", WHOLE,
              {WHOLE: _share(dropped, examples + dropped)}, "share",
              maximum=bounds.REPEATED_IMPRESSIONS.warning),
        Check("exploration_is_steady", _WARNING,
              "Share of randomised traffic in the holdout minus that in training.",
              WHOLE, {WHOLE: exploring[SPLIT_HOLDOUT] - exploring[SPLIT_TRAINING]}, "change",
              -bounds.EXPLORATION_GAP.warning, bounds.EXPLORATION_GAP.warning),
        Check("most_requests_are_known", _CRITICAL,
              "Actions that name a request which the log does not have of their user.",
              WHOLE, {WHOLE: unknown}, "share",
              maximum=bounds.UNKNOWN_REQUESTS.critical, not_judged=naming),
        Check("requests_are_known", _WARNING,
              "Actions that name a request which the log does not have of their user.",
              WHOLE, {WHOLE: unknown}, "share", maximum=bounds.UNKNOWN_REQUESTS.warning,
              not_judged=naming),
        Check("actions_follow_impressions", _WARNING,
              "Actions without a request whose pin the user was shown only afterwards.",
              WHOLE, {WHOLE: early}, "share", maximum=bounds.EARLY_ACTIONS.warning,
              not_judged=near),
    ))  # fmt: skip


def rate_checks(
    config: DataGateConfig, snapshot: Snapshot, profile: SnapshotProfile
) -> tuple[Check, ...]:
    """Return the checks of label rates, and of how much sequences, pins and categories cover."""
    measures, features = profile.measures, snapshot.features
    target, low, high = (
        features.main_head.name,
        config.min_positive_share,
        config.max_positive_share,
    )
    in_training, in_holdout = (
        measures.label_rate(target, s) for s in (SPLIT_TRAINING, SPLIT_HOLDOUT)
    )
    # Where no shard could be measured, the number of positives is not known.
    positives = {
        head: float(measures.positives[head][SPLIT_TRAINING]) if head in measures.positives else NAN
        for head in features.head_names
    }
    codes = {each.name: measures.histograms.get(each.name) for each in features.categorical}
    unknown = {name: _share(found[0], found.sum()) for name, found in sorted(codes.items())
               if found is not None}  # fmt: skip
    sequences = _share(measures.with_sequence, int(measures.requests.sum()))
    zeros = _share(measures.zero_embeddings, int(measures.examples.sum()))
    return _whole_where_measured(profile, (
        Check("target_label_rate", _CRITICAL, f"Training examples with a {target}.",
              WHOLE, {WHOLE: in_training}, "share", low, high),
        Check("target_label_rate_holdout", _CRITICAL, f"Holdout examples with a {target}.",
              WHOLE, {WHOLE: in_holdout}, "share", low, high),
        Check("every_head_has_positives", _WARNING,
              "Each head occurs in training, or it learns to predict nothing.",
              "heads", positives, "count", minimum=1),
        Check("sequence_coverage", _CRITICAL, "Requests with at least one earlier action.",
              WHOLE, {WHOLE: sequences}, "share", minimum=config.min_sequence_share),
        Check("embedding_coverage", _CRITICAL,
              "Examples whose candidate has an all-zero embedding.",
              WHOLE, {WHOLE: zeros}, "share", maximum=config.max_zero_embedding_share),
        Check("known_categories", _WARNING, "Values outside a categorical feature's closed list.",
              "categories", unknown, "share", maximum=config.max_unknown_category_share,
              not_judged="" if codes else "the recipe has no categorical feature"),
    ))  # fmt: skip


def change_checks(
    config: DataGateConfig,
    snapshot: Snapshot,
    profile: SnapshotProfile,
    reference: Reference | None,
    not_judged: str,
) -> tuple[Check, ...]:
    """Return the checks of relative changes against the last accepted snapshot.

    Args:
        config: Thresholds.
        snapshot: The manifest of what is judged.
        profile: Its profile.
        reference: The last accepted snapshot; None in the first cycle.
        not_judged: See `why_not_judged`.
    """
    target, label, rows = (
        snapshot.features.main_head.name,
        config.max_label_rate_change,
        config.max_row_count_change,
    )
    before = reference.profile if reference else SnapshotProfile()
    other_basis = ""
    if reference and reference.snapshot.embedding_version != snapshot.embedding_version:
        other_basis = "the embedding version changed, so lengths may too"
    now, then, norm = profile.measures, before.measures, bounds.NORM_CHANGE.warning
    return _whole_where_measured(profile, (
        Check("row_count_shift", _CRITICAL,
              "Change of the number of examples against the last accepted snapshot.", WHOLE,
              _change(now.examples.sum(), then.examples.sum()), "change", -rows, rows, not_judged),
        Check("target_label_rate_shift", _CRITICAL,
              "Change of the target label rate against the last accepted snapshot.", WHOLE,
              _change(now.label_rate(target), then.label_rate(target)), "change", -label, label,
              not_judged),
        Check("embedding_norm_shift", _WARNING,
              "Change of the pins' mean embedding length against the last accepted snapshot.",
              WHOLE, _change(profile.mean_pin_norm, before.mean_pin_norm), "change", -norm, norm,
              not_judged or other_basis),
    ))  # fmt: skip


def why_not_judged(
    config: DataGateConfig,
    snapshot: Snapshot,
    profile: SnapshotProfile,
    reference: Reference | None,
) -> str:
    """Return why shift against the last accepted snapshot cannot be judged, or nothing."""
    if reference is None:
        return NO_REFERENCE
    if reference.profile.unmeasured_shards:
        return "the last accepted snapshot can no longer be read or measured"
    if snapshot.features.main_head.name not in reference.snapshot.features.head_names:
        return "the last accepted snapshot has another main head"
    fewest = min(int(known.measures.examples.sum()) for known in (profile, reference.profile))
    if fewest < config.min_rows_for_shift:
        return f"{fewest:,} examples, fewer than min_rows_for_shift = {config.min_rows_for_shift:,}"
    return ""


def _whole_where_measured(profile: SnapshotProfile, checks: tuple[Check, ...]) -> tuple[Check, ...]:
    """Return the checks with NaN where shards could not be measured: others say nothing of all."""
    if not profile.unmeasured_shards:
        return checks
    return tuple(replace(each, values=dict.fromkeys(each.values, NAN)) for each in checks)


def _shares_of_days(
    snapshot: Snapshot, measures: Measures
) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
    """Return each day that either window touches, as shares of the median day.

    Returns:
        By day: its requests; its label rate; the label rate of heads that were launched by then.
    """
    days = {}
    for window, name in ((snapshot.training, "training"), (snapshot.holdout, "holdout")):
        for day in range(window.start_ms // DAY_MS, -(-window.end_ms // DAY_MS)):
            date = datetime.fromtimestamp(day * DAY_MS / 1000, tz=UTC).date()
            days[f"{date} ({name})"] = day
    counts = {
        name: measures.days[day][0] if day in measures.days else 0 for name, day in days.items()
    }
    median = float(np.median(list(counts.values())))
    main = snapshot.features.head_names.index(snapshot.features.main_head.name)
    rates = (rate_shares(measures), rate_shares(measures, main))
    missing = 1.0 if rates[0] else NAN
    return (
        {name: float(count / median) if median else 0.0 for name, count in counts.items()},
        {name: rates[0].get(day, missing) for name, day in days.items()},
        {name: rates[1].get(day, missing) for name, day in days.items()},
    )


def rate_shares(measures: Measures, main_head: int | None = None) -> dict[int, float]:
    """Return, by day, the lowest label rate of a head against the head's median day.

    A head counts on a day on which its median rate would give enough positives.

    Args:
        measures: The snapshot's.
        main_head: The place of the main head. Where it is given, another head does not count on the
            days before its first positive on which any head has positives: a new action type was
            not launched yet, and nothing is missing. None counts these days too.
    """
    days = sorted(day for day, (_, examples, *_) in measures.days.items() if examples)
    if not days:
        return {}
    rows = np.stack([measures.days[day] for day in days])
    examples, positives = rows[:, 1:2], rows[:, 2:]
    rates = positives / examples
    usual = np.median(rates, axis=0)
    is_telling = usual * examples >= bounds.LABEL_RATE_BY_MEDIAN.fewest
    if main_head is not None:
        is_launched = (np.cumsum(positives, axis=0) > 0) | ~positives.any(axis=1, keepdims=True)
        is_launched[:, main_head] = True
        is_telling &= is_launched
    shares = np.divide(rates, usual, out=np.ones_like(rates), where=is_telling)
    return dict(zip(days, shares.min(axis=1).tolist(), strict=True))


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole else NAN


def _change(now: float, before: float) -> dict[str, float]:
    """Return the relative change of the whole; NaN where the value before is 0."""
    return {WHOLE: float(now / before - 1.0) if before else NAN}
