"""What models of one recipe got on one window's requests, and the pairs that they make.

Beside the live scores there are those of the window's own model by frozen actions: users are taken
to have done nothing since an older model was made. So stale weights (old model, live actions) are
told from stale inputs (own model, frozen actions). Numeric features stay live in both.

Letters: G groups of users of a window, M requests.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import cache
from typing import Literal

import numpy as np

from pipelines.contracts.decay import DayChange
from pipelines.contracts.reasons import POPULARITY
from training.bundle.score_split import SplitScores
from validation.decay.curve import Pair
from validation.model_gate.baselines import RANKINGS
from validation.model_gate.comparison import Holdout, log_losses
from validation.model_gate.intervals import FloatArray

Kind = Literal["hits", "log_loss", "frozen", "warm"]
"""Of a pair: hits or log loss of older models, hits of the own model by frozen actions, or hits of
a warm model beside the one of its day that was trained from scratch."""


@dataclass(frozen=True, eq=False)
class ScoredWindow:
    """One window's requests, scored by its own model and older ones."""

    as_of: datetime
    begins: datetime  # Its first day.
    holdout: Holdout
    live: Mapping[datetime, SplitScores]  # By the models' days; its own is there.
    frozen: Mapping[datetime, SplitScores]  # Of its own model, by the day up to which users acted.
    # Of its own warm model and the one before, by day.
    warm: Mapping[datetime, SplitScores] = field(default_factory=dict)

    def scores(self, kind: Kind) -> Mapping[datetime, SplitScores]:
        """Return what a kind of pairs is made of."""
        return {"frozen": self.frozen, "warm": self.warm}.get(kind, self.live)

    @cache  # noqa: B019 - a window lives as long as what is asked of it
    def sums(self, day: datetime, head: str, kind: Kind) -> FloatArray:
        """Return hits, or nats of log loss, of one model on each request, (M,)."""
        scores, holdout = self.scores(kind)[day], self.holdout
        if kind != "log_loss":
            return holdout.hits(scores.ranking_score, head)
        label = holdout.rows.labels[head].astype(np.float64)
        return holdout.per_request(log_losses(label, scores.probabilities[head]))

    def lead(self, day: datetime) -> float:
        """Return how many times the target's hits of popularity a model gets; NaN of none."""
        head, numbers = self.holdout.target_head.name, self.holdout.rows.numeric
        popular = next(each for each in RANKINGS if each.name == POPULARITY)
        score = popular.score(*(np.float64(numbers[name]) for name in popular.needs))
        whole = float(self.holdout.hits(score, head).sum())
        return float(self.sums(day, head, "hits").sum()) / whole if whole else np.nan


def pairs_of(
    windows: Sequence[ScoredWindow], head: str, kind: Kind = "hits", segment: str = "all"
) -> list[Pair]:
    """Return every older model beside each window's own, by groups of users, in time."""
    place = {window.as_of: at for at, window in enumerate(windows)}
    return [pair for each in windows for pair in _pairs(each, place, head, kind, segment)]


def _pairs(
    window: ScoredWindow, place: Mapping[datetime, int], head: str, kind: Kind, segment: str
) -> Iterator[Pair]:
    own, holdout = window.as_of, window.holdout
    mask, (groups, of_user) = holdout.masks[segment], holdout.user_groups
    of_request = of_user[holdout.request_user][mask]

    def by_group(day: datetime, asked: Kind) -> FloatArray:
        values = window.sums(day, head, asked)[mask]
        return np.bincount(of_request, values, len(groups)).astype(np.float64)

    for day in window.scores(kind):
        if day in place and (day != own or kind == "warm"):
            lag_days = round((own - day).total_seconds() / 86400)
            beside = day if kind == "warm" else own
            fresh = by_group(beside, "log_loss" if kind == "log_loss" else "hits")
            # Of a warm pair both models are of that day, and neither is the window's by its place.
            old = place[day] + (len(place) if kind == "warm" else 0)
            yield Pair(old, place[own], lag_days, by_group(day, kind) - fresh, fresh, groups)


def day_changes(
    windows: Sequence[ScoredWindow], head: str, kind: Kind = "hits", segment: str = "all"
) -> list[DayChange]:
    """Return what each older model loses on each day that has requests, by model and day.

    A day of two windows is held against the own models of both. The error is that of users alone.
    """
    begins = {window.as_of: window.begins for window in windows}
    found: dict[tuple[datetime, date], list[FloatArray]] = {}  # (3, M) group, lost and fresh
    for window in windows:
        holdout, fresh = window.holdout, window.sums(window.as_of, head, kind)
        groups, of_user = holdout.user_groups
        group_M = groups[of_user[holdout.request_user]]
        for day in np.unique(holdout.rows.day[holdout.masks[segment]]):
            is_of = holdout.masks[segment] & (holdout.rows.day == day)
            on = (window.begins + timedelta(days=int(day))).date()
            for old in sorted(begins.keys() & window.live.keys() - {window.as_of}):
                of_day = np.stack([group_M, window.sums(old, head, kind) - fresh, fresh])[:, is_of]
                found.setdefault((old, on), []).append(of_day)
    changes = []
    for (old, on), parts in sorted(found.items(), key=lambda item: item[0]):
        group, *values = np.concatenate(parts, axis=1)
        place = np.unique(group, return_inverse=True)[1]
        lost, got = (np.bincount(place, each) for each in values)
        whole, age_days = float(got.sum()), (on - begins[old].date()).days
        change = error = None
        if whole and np.isfinite(lost).all():
            change = float(lost.sum()) / whole
            error = float(np.linalg.norm(lost - change * got)) / whole
        changes.append(DayChange(model=old, day=on, age_days=age_days, change=change, error=error))
    return changes
