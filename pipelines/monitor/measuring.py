"""Scores the champion, and another model of its recipe, on days whose labels are mature.

    <workspace>/monitor/<model>/<champion's bundle>/<day>.json    a Comparison, never altered

A day is measured once its rows are there, so that a late one enters late, in any order. Not for
what the days say (`pipelines.monitor.watching`).
"""

import logging
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from pipelines import storage
from pipelines.contracts import errors
from pipelines.contracts.artifacts import ModelRef
from pipelines.contracts.config import RunConfig
from pipelines.contracts.judgement import Comparison
from pipelines.contracts.reasons import BaselineKind
from pipelines.contracts.schemas import SPLIT_HOLDOUT
from pipelines.contracts.time import Window
from pipelines.event_log.log_files import EventLog
from pipelines.recipes.own_functions import as_they_are_now
from pipelines.registry import registry, tracking
from pipelines.registry.history import History
from pipelines.settings import Settings
from pipelines.snapshot.build import build_of
from pipelines.snapshot.counterpart import unknown_types
from pipelines.snapshot.plan import SnapshotPlan

log = logging.getLogger(__name__)
DAY = timedelta(days=1)
MOST_DAYS = 14
"""So many mature days are looked after; what arrives later than that is left out."""
Bundles = list[tuple[ModelRef, Path, Any]]
"""Models with their bundles' folders and configurations."""


class Watched(NamedTuple):
    """The champion, and the log that it is measured on."""

    settings: Settings
    history: History  # Its last move brought the champion.
    recipe: RunConfig
    event_log: EventLog
    complete_to: datetime  # The log has all that happened before.
    folder: str  # Where the champion's days lie.

    def missing_days(self) -> list[date]:
        """Return the days of this champion with rows and all labels that were not measured."""
        labels = timedelta(hours=self.recipe.snapshot.label_window_hours)
        newest = (self.complete_to - labels).astimezone(UTC).date() - DAY
        first = min(self.history.in_time.moves[-1].moved_at.astimezone(UTC).date(), newest)
        days = {newest - n * DAY for n in range(MOST_DAYS) if newest - n * DAY >= first}
        there = {file.day for file in self.event_log.files_of("impressions")}
        done = set(storage.list_names(self.folder))
        return sorted(day for day in days & there if f"{day}.json" not in done)


def measure(watched: Watched, day: date, now: datetime) -> None:
    """Measure a day the champion was not trained on; of two at once the first to end counts.

    Raises:
        HomefeedError: the log, a bundle or MLflow cannot be read.
    """
    uri, start = storage.join(watched.folder, f"{day}.json"), datetime.combine(day, time(), UTC)
    with storage.scratch_folder(watched.history.workspace_uri) as scratch:
        if bundles := _bundles(watched, start, scratch):
            found = _compare(watched, bundles, start, min(now, watched.complete_to + DAY))
            storage.create(uri, found.to_record())


def _bundles(watched: Watched, start: datetime, scratch: Path) -> Bundles:
    """Return the champion and the newest other model of its recipe, not trained from `start` on."""
    from training.bundle.files import read_config

    client, moves = tracking.connect(watched.settings.tracking_uri), watched.history.moves
    made = [registry.read_champion(client, watched.history.name, alias=alias)
            for alias in ("anchor", "challenger")]  # fmt: skip
    known = {each.version: each for each in (*made, *(move.model for move in moves)) if each}
    champion, found = known.pop(moves[-1].model.version), Bundles()
    for model in (champion, *sorted(known.values(), key=lambda each: each.as_of, reverse=True)):
        try:
            bundle_dir = registry.download_bundle(client, model, scratch)
            config = read_config(bundle_dir)
        except (errors.TrackingEntryMissingError, errors.DataContractError) as error:
            if not found:
                raise
            log.warning("%s cannot be the reference: %s", model.label, error)
            continue
        is_like = not found or config.recipe.digest == found[0][2].recipe.digest
        if is_like and config.training.end <= start:
            found.append((model, bundle_dir, config))
        if len(found) != 1:  # Both are found, or the champion knows the day.
            break
    return found


def _compare(watched: Watched, bundles: Bundles, start: datetime, before: datetime) -> Comparison:
    """Score the models on the rows of the day from `start` on that were known before an instant."""
    from training.bundle.score_split import score_split
    from training.data.reader import load_rows
    from validation.model_gate.comparison import ComparedModels, Holdout, compare

    (champion, _, bundle), recipe = bundles[0], watched.recipe
    numeric = as_they_are_now(bundle.features.numeric)
    told = bundle.features.model_copy(update={"numeric": numeric})
    nothing, whole = Window(start=start, end=start), Window(start=start, end=start + DAY)
    others = unknown_types(recipe.features, told)
    plan = SnapshotPlan(before, told, bundle.snapshot, nothing, whole, others)
    snapshots_uri = storage.join(watched.history.workspace_uri, "snapshots")
    snapshot = build_of(plan, watched.event_log.uri, snapshots_uri)
    with storage.local_copy(snapshot.uri) as place:
        scores = [score_split(each, snapshot, place, SPLIT_HOLDOUT) for _, each, _ in bundles]
        holdout = Holdout(load_rows(snapshot, place, SPLIT_HOLDOUT), told.heads, recipe.model_gate)
    other = (
        bundles[1][0] if len(bundles) > 1 else None
    )  # Else the champion is compared with itself.
    models = ComparedModels(whole, BaselineKind.ANCHOR, champion, other)
    return compare(holdout, scores[0], scores[-1], models).comparison
