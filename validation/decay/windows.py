"""What models of one recipe got on one window's requests, as a file and as pairs.

Beside the live scores there are those of the window's own model by frozen actions: users are taken
to have done nothing since an older model was made. So stale weights (old model, live actions) are
told from stale inputs (own model, frozen actions). Numeric features stay live in both.

Letters: K models, the window's own last; F frozen days; H heads; M requests; N examples.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.config import RunConfig
from pipelines.contracts.schemas import SPLIT_HOLDOUT
from training.bundle.files import Predictor
from training.bundle.score_split import logits_of, ranking_score
from training.data.reader import SnapshotReader, load_rows
from validation.decay.curve import Pair
from validation.model_gate.baselines import POPULARITY, RANKINGS
from validation.model_gate.comparison import Holdout, log_losses
from validation.model_gate.intervals import FloatArray

_BATCH = 2048
_ARRAYS = ("hits", "frozen", "log_loss", "popular", "group", "is_core")


@dataclass(frozen=True)
class ScoredWindow:
    """One window, by the as_of of its models in time; its own one is the last."""

    as_of: tuple[datetime, ...]  # (K,)
    frozen_as_of: tuple[datetime, ...]  # (F,)
    heads: tuple[str, ...]  # (H,) that of the target metric first
    hits: np.ndarray  # uint8 (K, H, M) actions in the top 3
    frozen: np.ndarray  # uint8 (F, H, M) of the own model, by actions of before each day
    log_loss: np.ndarray  # float32 (K, H, M) nats, summed over a request's candidates
    popular: np.ndarray  # float32 (M,) hits of the first head by popularity
    group: np.ndarray  # int32 (M,) each request's group of users
    is_core: np.ndarray  # bool (M,)

    def save(self, path: Path) -> None:
        """Write it; the file appears as a whole."""
        said = {name: " ".join(d.isoformat() for d in getattr(self, name)) for name in _DAYS}
        arrays = {name: np.ascontiguousarray(getattr(self, name)) for name in _ARRAYS}
        save_file(
            arrays, partial := path.with_suffix(".partial"), {"heads": " ".join(self.heads)} | said
        )
        partial.rename(path)

    @classmethod
    def read(cls, path: Path) -> "ScoredWindow":
        """Return the window of a file."""
        with safe_open(path, framework="numpy") as file:
            said = file.metadata()
            days: dict[str, Any] = {
                name: tuple(map(datetime.fromisoformat, said[name].split())) for name in _DAYS
            }
            arrays: dict[str, Any] = {name: file.get_tensor(name) for name in _ARRAYS}
            return cls(heads=tuple(said["heads"].split()), **days, **arrays)


_DAYS = ("as_of", "frozen_as_of")


def score_window(
    models: Sequence[Predictor],
    frozen_as_of: Sequence[datetime],
    snapshot: Snapshot,
    snapshot_dir: Path,
    recipe: RunConfig,
) -> ScoredWindow:
    """Score a snapshot's holdout by models, in time, whose last one is its own."""
    rows = load_rows(snapshot, snapshot_dir, SPLIT_HOLDOUT)
    holdout = Holdout(rows, recipe.features.heads, recipe.model_gate)
    target = holdout.target_head.name
    names = sorted((head.name for head in holdout.heads), key=lambda name: name != target)
    own, config = models[-1], models[-1].config
    reader = SnapshotReader(
        snapshot.shards, snapshot_dir, config.features, config.model.max_actions
    )
    index = reader.index(SPLIT_HOLDOUT)
    frozen_at = [reader.frozen(index, int(day.timestamp() * 1000)) for day in frozen_as_of]
    hits, losses = [], []
    for model, requests in (*((each, index) for each in models), *((own, i) for i in frozen_at)):
        scores_NH = model.calibrate(logits_of(model, reader, requests, _BATCH))
        heads = model.config.features.heads
        given = {head.name: scores_NH[:, h] for h, head in enumerate(heads)}
        score = ranking_score(given, heads)
        hits.append([holdout.hits(score, name) for name in names])
        losses.append(
            [
                holdout.per_request(log_losses(rows.labels[name].astype(np.float64), given[name]))
                for name in names
            ]
        )
    popularity, num = next(each for each in RANKINGS if each.name == POPULARITY), len(models)
    popular = popularity.score(*(np.float64(rows.numeric[name]) for name in popularity.needs))
    groups, place = holdout.user_groups
    return ScoredWindow(
        as_of=tuple(model.config.as_of for model in models),
        frozen_as_of=tuple(frozen_as_of),
        heads=tuple(names),
        hits=np.array(hits[:num], dtype=np.uint8),
        frozen=np.array(hits[num:], dtype=np.uint8).reshape(-1, len(names), len(rows.user_id)),
        log_loss=np.array(losses[:num], dtype=np.float32),
        popular=holdout.hits(popular, target).astype(np.float32),
        group=groups[place[holdout.request_user]].astype(np.int32),
        is_core=holdout.masks["core"],
    )


def pairs_of(
    windows: Sequence[ScoredWindow],
    head: str,
    metric: str = "hits",
    segment: str = "all",
) -> list[Pair]:
    """Return every older model beside each window's own, by groups of users.

    Args:
        windows: In time.
        head: One of their heads.
        metric: 'hits' or 'log_loss' of older models, or 'frozen': the own model's hits.
        segment: 'all', 'core' or 'non_core'.
    """
    place = {window.as_of[-1]: at for at, window in enumerate(windows)}
    return [pair for each in windows for pair in _pairs(each, place, head, metric, segment)]


def _pairs(
    window: ScoredWindow, place: dict[datetime, int], head: str, metric: str, segment: str
) -> Iterator[Pair]:
    everybody = np.ones_like(window.is_core)
    mask = {"all": everybody, "core": window.is_core, "non_core": ~window.is_core}[segment]
    groups, of_request = np.unique(window.group[mask], return_inverse=True)

    def sums(values_HM: np.ndarray) -> FloatArray:
        values = values_HM[window.heads.index(head)][mask].astype(np.float64)
        return np.asarray(np.bincount(of_request, values, len(groups)))

    days = window.frozen_as_of if metric == "frozen" else window.as_of[:-1]
    fresh = sums((window.log_loss if metric == "log_loss" else window.hits)[-1])
    for as_of, values_HM in zip(days, getattr(window, metric), strict=False):
        if as_of in place:
            lag_days = round((window.as_of[-1] - as_of).total_seconds() / 86400)
            own = place[window.as_of[-1]]
            yield Pair(place[as_of], own, lag_days, sums(values_HM) - fresh, fresh, groups)
