"""All that scored windows tell of decay, as one value for people and for the monitor."""

import csv
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pipelines.contracts.config import RunConfig
from pipelines.contracts.decay import DayChange, Decay, DecayCurve, ScheduleArm, WarmStart
from pipelines.contracts.reasons import Interval
from validation.decay.cadence import cost_of_cadences, every, replay, trust_in, when_due
from validation.decay.curve import Pair, estimate
from validation.decay.shapes import compare_shapes
from validation.decay.windows import Kind, ScoredWindow, day_changes, pairs_of
from validation.model_gate.intervals import FloatArray
from validation.model_gate.target_metric import hits_name

_ARMS = (1, 2, 4)
"""Windows between trainings of the schedules that a schedule that watches is held against."""


def findings(
    windows: Sequence[ScoredWindow],
    recipe: RunConfig,
    core_hours: float | None,
    value: float | None = None,
    warm: WarmStart | None = None,
    **about: Any,
) -> Decay:
    """Return curves, shapes, cadences and schedules.

    Args:
        windows: In time, each with its own model and earlier ones.
        recipe: Of the models.
        core_hours: Processor time of one training with its snapshot; None: not measured.
        value: Of 1 % of the target metric a day, in core-hours; None: costs are not added up.
        warm: What a warm start costs; None: the windows have none.
        **about: The other fields of a `Decay`.
    """
    gate, target = recipe.model_gate, windows[0].holdout.target_head.name
    confidence, name = gate.confidence, gate.target_metric
    pairs = pairs_of(windows, target)
    found, heads = estimate(pairs), recipe.features.head_names
    asked: list[tuple[str, Kind, str, str]] = [
        *((target, "frozen", "all", name), (target, "hits", "core", name)),
        (target, "hits", "non_core", name),
        *((head, "hits", "all", hits_name(head)) for head in heads if head != target),
        *((head, "log_loss", "all", f"log_loss.{head}") for head in heads),
    ]
    curves = [found.to_curve(name, confidence)]
    for head, kind, segment, metric in asked:
        of, stale = estimate(pairs_of(windows, head, kind, segment)), kind == "frozen"
        curves.append(of.to_curve(metric, confidence, segment, "actions" if stale else "weights"))
    as_of = tuple(window.as_of for window in windows)
    changes = _changes(pairs, len(windows))
    rounded = np.round(changes, 6).tolist()
    is_priced = core_hours is not None and value is not None
    beside, at_cost = estimate(pairs_of(windows, target, "warm")), None
    if warm and len(beside.lags):
        own, *later = (beside.interval(at, confidence) for at in range(len(beside.lags)))
        warm = warm.model_copy(update={"own": own, "later": later[0] if later else None})
        at_cost = (beside, warm.cost_share) if warm.cost_share else None
    return Decay(
        recipe=recipe.reference,
        recipe_digest=recipe.recipe_digest,
        target_metric=name,
        as_of=as_of,
        user_share=_user_share(windows),
        curves=tuple(curve for curve in curves if curve.points),
        matrix=tuple(tuple(v if math.isfinite(v) else None for v in row) for row in rounded),
        days=day_changes(windows, target),
        shapes=compare_shapes(pairs),
        core_hours=core_hours,
        value=value,
        cadences=cost_of_cadences(
            found, core_hours or 0.0, value if is_priced else None, confidence, at_cost
        ),
        warm=warm,
        schedules=_schedules(windows, curves[0], changes, core_hours, value, warm),
        **about,
    )


def day_table(windows: Sequence[ScoredWindow], recipe: RunConfig) -> str:
    """Return what each model loses on each day, by head and segment, as CSV; unknown is empty."""
    text, columns = io.StringIO(), ("metric", "segment", *DayChange.model_fields)
    table = csv.DictWriter(text, columns, lineterminator="\n")
    table.writeheader()
    for head in recipe.features.head_names:
        kinds: dict[Kind, str] = {"hits": hits_name(head), "log_loss": f"log_loss.{head}"}
        for kind, metric in kinds.items():
            for segment in ("all", "core", "non_core"):
                for each in day_changes(windows, head, kind, segment):
                    named = {"metric": metric, "segment": segment}
                    table.writerow(named | each.model_dump(mode="json"))
    return text.getvalue()


def _user_share(windows: Sequence[ScoredWindow]) -> float:
    """Return which part of the windows' users was scored."""
    users = [len(np.unique(window.holdout.rows.user_id)) for window in windows]
    in_all = [window.holdout.rows.num_users_in_all for window in windows]
    return sum(users) / sum(num or own for num, own in zip(in_all, users, strict=True))


def _changes(pairs: Sequence[Pair], num: int) -> FloatArray:
    """Return the change of each older model (row) on each window (column); NaN where none is."""
    changes = np.full((num, num), np.nan)
    np.fill_diagonal(changes, 0.0)
    for pair in pairs:
        changes[pair.old, pair.window] = pair.change
    return changes


def _schedules(
    windows: Sequence[ScoredWindow],
    curve: DecayCurve,
    changes: FloatArray,
    core_hours: float | None,
    value: float | None,
    warm: WarmStart | None,
) -> tuple[ScheduleArm, ...]:
    """Return how fixed schedules, one that starts warm and one that watches would have gone.

    They are () where nobody can say. A chain of warm starts was only made for every window.
    """
    days = [window.as_of.timestamp() / 86400 for window in windows]
    step = days[1] - days[0]
    is_even = np.allclose(np.diff(days), step)
    if not is_even or not curve.points or len(days) < 3:
        return ()
    changes = _filled(changes)
    arms = {f"every {step * num:g} days": every(num) for num in _ARMS}
    if core_hours and value:
        ages = step * np.subtract.outer(np.arange(len(days)), np.arange(len(days))).T
        expected = np.vectorize(lambda age: curve.expected(max(age, 0.0)).value)(ages)
        seen = _seen(windows)
        trust = trust_in(expected, seen, changes)
        arms["when due"] = when_due(expected, seen, core_hours / value / 100 / step, trust)
    replayed = {name: (*replay(changes, schedule), 1.0) for name, schedule in arms.items()}
    target, share = windows[0].holdout.target_head.name, warm and warm.cost_share
    beside = {p.window: -p.change for p in pairs_of(windows, target, "warm") if not p.lag_days}
    if share and len(beside) == len(windows) - 1:
        lost = np.array([beside.get(at, 0.0) for at in range(len(windows))])
        replayed[f"warm every {step:g} days"] = ([*range(len(windows))], lost, share)
    return tuple(
        ScheduleArm(
            name=name,
            num_trainings=len(trained),
            cycle_share=share,
            lost=_mean_of(lost, curve.confidence),
        )
        for name, (trained, lost, share) in replayed.items()
    )


def _mean_of(lost: FloatArray, confidence: float) -> Interval:
    """Return the mean of what windows lost, two standard errors either side."""
    at, half = float(lost.mean()), 2 * float(lost.std(ddof=1)) / len(lost) ** 0.5
    return Interval(value=at, low=at - half, high=at + half, confidence=confidence)


def _filled(changes: FloatArray) -> FloatArray:
    """Return changes with a straight line between the windows that a model was scored on."""
    filled, at = changes.copy(), np.arange(len(changes))
    for old, row in enumerate(changes):
        known = np.isfinite(row)
        filled[old, old:] = np.interp(at[old:], at[known], row[known])
    return filled


def _seen(windows: Sequence[ScoredWindow]) -> FloatArray:
    """Return what is seen of an old model (row) on a window (column) without a fresh one, (W, W).

    It is the change of its lead over popularity, which needs no training, since its own window.
    """
    place = {window.as_of: at for at, window in enumerate(windows)}
    leads = np.full((len(windows), len(windows)), np.nan)
    for at, window in enumerate(windows):
        for day in window.live:
            if day in place:
                leads[place[day], at] = window.lead(day)
    return leads / np.diag(leads)[:, None] - 1
