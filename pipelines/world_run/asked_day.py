"""A day's requests as a model gets them: by the snapshot's kernel, from a log that ends before.

The kernel is that of training, so what a model is asked and what a later snapshot holds of the same
requests are one thing. Of the day itself the log has the candidates at first, and takes in what
users do round by round. Not for who ranks (`policies`). Tested in tests/pipelines/world_run/.

Letters: R requests of a round, C candidates.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.schemas import SPLIT_HOLDOUT
from pipelines.contracts.time import Window
from pipelines.event_log.log_files import EventLog, LogFile
from pipelines.event_log.reader import positions
from pipelines.snapshot.build import rows_of_one_shard
from pipelines.snapshot.kernel import build_shard
from pipelines.snapshot.pins import count_pins
from pipelines.snapshot.plan import SnapshotPlan
from pipelines.snapshot.shard import ShardRows, write_shard
from pipelines.sources.publish import write_table
from training.bundle.files import BundleConfig
from training.data.batches import Batch
from training.data.reader import SnapshotReader, chunks

_LATEST = timedelta(days=3)
"""No row of a world is known later than this; what is known at a request is told by the row."""
_SHARD = "shard"
_CANDIDATES_AT_ONCE = 2048


class AskedDay:
    """The requests of a day, for one model.

    Args:
        event_log: The days before.
        config: Of the model's bundle: which features it is told, and how they are computed.
        day: The day.
        impressions: IMPRESSIONS of the day, by time; a candidate's position is its place here.
        folder: An empty local folder for as long as the day is asked about.
        action_types: All that the log may have.
    """

    def __init__(
        self,
        event_log: EventLog,
        config: BundleConfig,
        day: date,
        impressions: pa.Table,
        folder: Path,
        action_types: Sequence[str],
    ) -> None:
        start = datetime.combine(day, time(), UTC)
        end, one = start + timedelta(days=1), timedelta(days=1)
        # As far back as the newest holdout of a snapshot of this recipe sees.
        own = config.snapshot
        history = own.history_days + own.training_days + own.embargo_days + own.holdout_days
        own = own.model_copy(update={"num_shards": 1, "history_days": history})
        known = config.features.action_types
        self._plan = plan = SnapshotPlan(
            as_of=end + timedelta(hours=own.label_window_hours) + _LATEST,
            features=config.features,
            config=own,
            training=Window(start=start - 2 * one, end=start - one),
            holdout=Window(start=start, end=end),
            passed_over=tuple(name for name in action_types if name not in known),
        )
        write_table(folder, "impressions", impressions, "today")
        [path] = folder.rglob("part-today.parquet")
        today = LogFile("impressions", str(path), day, path.stat().st_size)
        event_log = replace(event_log, files=(*event_log.files, today))
        self._config, self._folder = config, folder
        self._rows, found = rows_of_one_shard(event_log, plan, folder)
        self._pins = count_pins(event_log, found, plan, folder)
        (folder / _SHARD).mkdir()

    def batches(self, request_ids: pa.Array) -> list[tuple[list[str], Batch]]:
        """Return some of the day's requests as a model takes them, and which they are.

        Args:
            request_ids: Of requests of different users, whose earlier ones were all learnt from.
        """
        assert self._rows.impressions is not None
        is_asked = pc.is_in(self._rows.impressions["request_id"], request_ids)
        rows = ShardRows(
            self._rows.impressions.filter(is_asked), self._rows.actions, self._rows.users
        )
        summary = write_shard(
            self._folder / _SHARD, _SHARD, build_shard(rows, self._pins, self._plan), self._plan
        )
        features, longest = self._config.features, self._config.model.max_actions
        reader = SnapshotReader([summary.stats], self._folder, features, longest)
        parts = chunks(reader.index(SPLIT_HOLDOUT), _CANDIDATES_AT_ONCE)
        return [
            (reader.request_column(part, "request_id").tolist(), reader.make_batch(part))
            for part in parts
        ]

    def learn(self, actions: pa.Table) -> None:
        """Take in ACTIONS of the day, which later requests of it may know."""
        places = positions(actions["action_type"], self._plan.features.action_types)
        actions, places = actions.filter(pa.array(places >= 0)), places[places >= 0]
        number = pa.field("action_type_id", pa.int8(), nullable=False)
        place = actions.schema.names.index("action_type")
        rows = actions.set_column(place, number, pa.array(places + np.int8(1)).cast(pa.int8()))
        before = self._rows.actions
        if before is not None:
            rows = pa.concat_tables([before, rows.select(before.column_names).cast(before.schema)])
        self._rows = replace(self._rows, actions=rows)
