"""The plan of a snapshot: its windows, what its workers must know, and the shard of a user.

Not for reading or computing: `spill` and `kernel` follow this plan.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipelines.contracts.config import (
    FeatureConfig,
    NumericFeature,
    RunConfig,
    SnapshotConfig,
    number_columns,
)
from pipelines.contracts.features import FIRST_SEEN_DAYS, WINDOWS_DAYS
from pipelines.contracts.hashing import mix
from pipelines.contracts.time import DAY_MS, HOUR_MS, Window, to_ms


class WindowCounts(NamedTuple):
    """A number for each window; the fields are named like `SnapshotPlan.windows`."""

    training: int
    holdout: int


@dataclass(frozen=True)
class SnapshotPlan:
    """Everything that a worker must know; picklable and small."""

    as_of: datetime
    features: FeatureConfig
    config: SnapshotConfig
    training: Window
    holdout: Window
    passed_over: tuple[str, ...] = ()  # action types that the log may have and nobody is told of

    @property
    def windows(self) -> dict[str, Window]:
        """The two windows by name, the earlier one first; nothing may be asked of training."""
        named = {"training": self.training, "holdout": self.holdout}
        return {name: each for name, each in named.items() if each.start < each.end}

    @property
    def as_of_ms(self) -> int:
        """as_of in milliseconds since the epoch."""
        return to_ms(self.as_of)

    @property
    def label_window_ms(self) -> int:
        """How long after its impression an action counts as a label, in milliseconds."""
        return self.config.label_window_hours * HOUR_MS

    @property
    def history_start_ms(self) -> int:
        """The instant before which no action of a timeline happened."""
        return self.training.start_ms - self.config.history_days * DAY_MS

    @property
    def actions_start_ms(self) -> int:
        """The instant from which actions are read: the longest look back of any feature."""
        days = max(self.config.history_days, self.config.core_days, *self.popularity_windows)
        # One day is added because popularity looks back from the midnight before a request.
        return self.training.start_ms - (days + 1) * DAY_MS

    @property
    def first_seen_start_ms(self) -> int:
        """The instant from which a pin's first appearance is searched for.

        The first request searches from the midnight (UTC) FIRST_SEEN_DAYS before its own day. It is
        the start of training where the recipe says that a column of pins has the pins' ages.
        """
        age = next(feature for feature in self.numeric if feature.name == "pin_age")
        if age.column is not None:
            return self.training.start_ms
        return (self.training.start_ms // DAY_MS - FIRST_SEEN_DAYS) * DAY_MS

    @property
    def popularity_windows(self) -> tuple[int, ...]:
        """The lengths of the trailing windows in which a pin's actions are counted, days."""
        return tuple(sorted({self.config.popularity_days, *WINDOWS_DAYS}))

    @cached_property
    def numeric(self) -> tuple[NumericFeature, ...]:
        """The numeric features that the snapshot holds."""
        return self.features.numeric_held

    def number_columns(self, table: str) -> tuple[str, ...]:
        """Return the number columns of an event log table that numeric features read."""
        return number_columns(self.numeric, table)

    @property
    def action_type_ids(self) -> dict[str, int]:
        """The id of each action type, counted from 1, because 0 pads a sequence."""
        return {name: index + 1 for index, name in enumerate(self.features.action_types)}

    @property
    def wanted_action_types(self) -> tuple[str, ...]:
        """The action types that make a pin popular: all but those of unwanted heads (hide)."""
        unwanted = {head.action_type for head in self.features.heads if not head.is_wanted}
        return tuple(name for name in self.features.action_types if name not in unwanted)

    @property
    def request_days(self) -> npt.NDArray[np.int64]:
        """Days since the epoch on which requests of either window fall, sorted."""
        days: set[int] = set()
        for window in self.windows.values():
            days.update(range(window.start_ms // DAY_MS, (window.end_ms - 1) // DAY_MS + 1))
        return np.array(sorted(days), dtype=np.int64)


def plan_of(recipe: RunConfig, as_of: datetime, passed_over: tuple[str, ...] = ()) -> SnapshotPlan:
    """Return the plan of a recipe's snapshot, whose windows end where impressions are mature.

    The holdout ends at as_of minus the label window and is `holdout_days` long. The embargo of
    `embargo_days` lies before it, and the training window is the `training_days` before the
    embargo. All windows are half-open: their start is included, their end is not.
    """
    config = recipe.snapshot
    end = as_of - timedelta(hours=config.label_window_hours)
    holdout = Window(start=end - timedelta(days=config.holdout_days), end=end)
    training_end = holdout.start - timedelta(days=config.embargo_days)
    training = Window(start=training_end - timedelta(days=config.training_days), end=training_end)
    return SnapshotPlan(as_of, recipe.features, config, training, holdout, passed_over)


def shard_of(user_ids: npt.NDArray[np.int64], num_shards: int) -> npt.NDArray[np.int64]:
    """Return the shard of each user: a hash of the id alone, equal on every machine.

    The hash is SplitMix64's, so that ids in a row spread evenly and any engine can compute it.
    """
    return (mix(user_ids) % np.uint64(num_shards)).astype(np.int64)


def shard_name(shard: int) -> str:
    """Return a shard's folder name."""
    return f"shard-{shard:05d}"
