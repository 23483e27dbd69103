"""`EventLogWriter`: somebody's tables in, an event log out, whole or not at all.

Not for what the rows mean, nor for tables that an adapter has made already
(`pipelines.sources.writer.log_folder`).
"""

import contextlib
import logging
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa

from pipelines import storage
from pipelines.contracts.errors import ConfigurationError, DataContractError
from pipelines.contracts.schemas import EVENT_LOG_TABLES
from pipelines.contracts.time import DAY_MS, with_utc
from pipelines.event_log.log_files import EVENT_TIME_COLUMNS
from pipelines.event_log.record import NAMES
from pipelines.sources.writer import assemble
from pipelines.sources.writer.batches import tables_of
from pipelines.sources.writer.columns import Normalised, normalise
from pipelines.sources.writer.log_folder import LogFolder
from pipelines.sources.writer.placing import (
    MADE_BY,
    Existing,
    find_log,
    place_increment,
    place_new,
)
from pipelines.sources.writer.problems import Problems
from pipelines.sources.writer.runs import Runs
from pipelines.sources.writer.settled import Settled

log = logging.getLogger(__name__)
_KEYS = {"impressions": "impressed_at", "actions": "acted_at", "pins": "pin_id", "users": "user_id"}


class EventLogWriter:
    """Writes an event log, or adds days, pins and users to one that it wrote before.

    ```python
    with EventLogWriter(location, embedding_version="mine-1") as writer:
        writer.pins(pins)
        for day in days:
            writer.impressions(shown_on(day))
            writer.actions(acted_on(day))
    ```

    A batch is a pandas or polars DataFrame, an Arrow table, record batch or reader, or a dictionary
    of columns. Batches come in any order and number, and their rows too. Each is checked as the
    reader checks a file, and a message names all that is wrong with it. The rows wait on the disk,
    sorted, near the log, and a few hundred MiB of them are in memory. Leaving the block puts all of
    them in place; an exception in the block puts none.

    Columns and defaults (a time is int64 ms since the epoch, or a timestamp or date column, in UTC
    where it has no zone; parts of a millisecond are cut off):

    - `impressions`: request_id (text or integer), user_id, pin_id, impressed_at; `known_at` is
      impressed_at, `position` the place among the request's rows of this block by time and then as
      they were given, `surface` 'homefeed', `is_exploration` False, `propensity` null.
    - `actions`: user_id, pin_id, action_type, acted_at; `known_at` is acted_at, `request_id` null.
    - `pins`: pin_id, embedding; `embedding_version` is the writer's; `known_at`, where it is given,
      says from when on the row is known, and a request before it sees zeros. Without it a pin is
      known from the beginning.
    - `users`: user_id, as_of; `embedding` is zeros as wide as the pins', `state` 'unknown',
      `location` null. Users' embeddings lie in the pins' space, and all batches have them or none.
      A log may have no users: a user without a row is a newcomer with an embedding of zeros.

    A row of pins or users that is the same as one that is there already, in every column, is passed
    over; so all pins may be given with each day. A changed row is refused.

    Where a column may be null and is in every row, its type does not matter. Any other column is
    passed on, as a feature; its name and type are the same in every batch, and a later increment
    may add columns.

    Ids of users and of pins are integers, or texts, which become 64-bit hashes
    (`identifiers.id_of`); the names stand below names/ in the log. Embeddings are lists (or a
    two-dimensional array) of float16, float32 or float64 numbers of one width in a version;
    float64 becomes float32.

    Args:
        location: path or URI of the log: missing, empty, or written by this class.
        embedding_version: the version that the pins' embeddings belong to.
        replace_days: rows of a day that the log has already replace that table's rows of the day;
            by default they are refused.
    """

    def __init__(
        self, location: str | Path, embedding_version: str, *, replace_days: bool = False
    ) -> None:
        self.uri = storage.to_uri(location)
        self._version = embedding_version
        self._replaces_days = replace_days
        self._stack = contextlib.ExitStack()
        self._scratch: Path | None = None
        self._existing: Existing | None = None
        self._runs: dict[str, Runs] = {}
        self._settled = Settled()
        self._num_batches: dict[str, int] = {}

    def __enter__(self) -> Self:
        """Take the log's place, and look at what is there.

        Raises:
            ConfigurationError: something else is there.
            RunInProgressError: another process writes there.
            TransientStorageError: the storage failed.
        """
        with contextlib.ExitStack() as stack:
            stack.enter_context(storage.exclusive_lock(self.uri, f"writing to {self.uri}"))
            self._existing = find_log(self.uri)
            parent = self.uri.rsplit("/", 1)[0]
            self._scratch = stack.enter_context(storage.scratch_folder(parent))
            self._stack = stack.pop_all()
        rows = self._scratch / "rows"
        self._runs = {table: Runs(rows / table, key) for table, key in _KEYS.items()}
        self._runs |= {column: Runs(rows / column, "id") for column in NAMES}
        self._num_batches = dict.fromkeys(EVENT_LOG_TABLES, 0)
        self._settled = Settled()
        if self._existing:
            self._settled = Settled.by_log(self._existing.record, self._version)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Publish everything where the block ended well; give the place free in any case."""
        with self._stack:
            try:
                if kind is None:
                    self._publish()
            finally:
                self._scratch = None

    def impressions(self, batch: Any) -> None:
        """Take impressions.

        Raises:
            DataContractError: the batch breaks the contract; none of it is taken.
        """
        self._take("impressions", batch)

    def actions(self, batch: Any) -> None:
        """Take actions.

        Raises:
            DataContractError: the batch breaks the contract; none of it is taken.
        """
        self._take("actions", batch)

    def pins(self, batch: Any) -> None:
        """Take pins with their embeddings.

        Raises:
            DataContractError: the batch breaks the contract; none of it is taken.
        """
        self._take("pins", batch)

    def users(self, batch: Any) -> None:
        """Take what was known of users at some instants.

        Raises:
            DataContractError: the batch breaks the contract; none of it is taken.
        """
        self._take("users", batch)

    def _take(self, table: str, batch: Any) -> None:
        if self._scratch is None:
            raise ConfigurationError(
                f"EventLogWriter({self.uri!r}) takes {table} outside of its block; expected it "
                f"within `with EventLogWriter(...) as writer:`; move the call into the block"
            )
        self._num_batches[table] += 1
        place = f"{table}, batch {self._num_batches[table]}"
        first_row = 0
        with self._all_or_nothing():
            for rows in tables_of(batch, place):
                # Rows are counted from the start of a part, which a large batch has several of.
                problems = Problems(f"{place} from row {first_row:,}" if first_row else place)
                known = self._settled.known(table, self._version)
                found = normalise(table, rows, known, problems)
                self._refuse_days(table, found.rows, problems)
                problems.refuse()
                with storage.translated_errors(self.uri, "keeping rows for"):
                    self._keep(table, found)
                first_row += len(rows)

    @contextlib.contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """Forget what was kept in this block where it ends by an exception of any kind."""
        settled = self._settled
        marks = {name: runs.mark() for name, runs in self._runs.items()}
        try:
            yield
        except BaseException:
            self._settled = settled
            for name, mark in marks.items():
                self._runs[name].return_to(mark)
            raise

    def _keep(self, table: str, found: Normalised) -> None:
        """Let rows wait, and hold the following batches to what these have settled."""
        self._runs[table].add(found.rows)
        for column, names in found.names.items():
            self._runs[column].add(names)
        self._settled = self._settled.followed_by(table, found)

    def _refuse_days(self, table: str, rows: pa.Table, problems: Problems) -> None:
        if table not in EVENT_TIME_COLUMNS or self._existing is None or self._replaces_days:
            return
        column = EVENT_TIME_COLUMNS[table]
        days = np.asarray(rows[column]) // DAY_MS
        there = {day for day in np.unique(days) if _named(day) in self._existing.record.days[table]}
        is_there = np.isin(days, sorted(there))
        shown = ", ".join(_named(day) for day in sorted(there)[:5])
        problems.add_rows(
            column,
            is_there,
            rows[column],
            f"days that the log does not have yet, and it has {shown} already; leave out these "
            f"rows, or give all rows of these days to EventLogWriter(..., replace_days=True)",
            with_utc,
        )

    def _publish(self) -> None:
        given = {table: self._runs[table].num_rows for table in EVENT_LOG_TABLES}
        if self._existing and not any(given.values()):
            log.info("nothing was given for %s", self.uri)
            return
        self._require_whole_log(given)
        assert self._scratch is not None  # the caller is in the block
        folder = self._scratch / "event_log"
        folder.mkdir()
        with storage.translated_errors(self.uri, "writing the event log for"):
            made = self._assemble(LogFolder(folder, MADE_BY, self._settled.id_kinds))
        increment = made.record()
        if not increment.files:
            log.info("%s has all that was given already", self.uri)
            return
        if self._existing is None:
            place_new(folder, self.uri, increment)
        else:
            replaced = {table: set(days) for table, days in increment.days.items()}
            record = self._existing.record.followed_by(increment, replaced)
            place_increment(folder, self.uri, self._existing, record)
        log.info("wrote %s: %s", self.uri, _counted(increment.num_rows))

    def _assemble(self, into: LogFolder) -> LogFolder:
        existing = self._existing
        before = existing.log if existing else None
        parts = assemble.Parts(existing.record.generation + 1 if existing else 1)
        for table in EVENT_TIME_COLUMNS:
            assemble.write_events(table, self._runs[table], into, parts)
        zeros = {"users": self._settled.zeros_of_users(self._version)}
        passed_over = {
            table: assemble.write_keyed(
                table, self._runs[table], into, parts, before, self._version, zeros.get(table)
            )
            for table in ("pins", "users")
        }
        if any(passed_over.values()):
            log.info(
                "passed over rows that are there already, the same in every column: %s",
                _counted(passed_over),
            )
        for column in NAMES:
            assemble.write_names(column, self._runs[column], into, parts, before)
        pins = self._settled.vectors["pins"]
        if existing is None and self._runs["users"].num_rows == 0 and pins is not None:
            assemble.write_no_users(into, parts, pins)
        return into

    def _require_whole_log(self, given: dict[str, int]) -> None:
        missing = [table for table in ("impressions", "actions", "pins") if not given[table]]
        if self._existing is None and missing:
            raise DataContractError(
                f"a new event log at {self.uri} would have no {' and no '.join(missing)}; "
                f"expected rows of impressions, actions and pins; give them in the same block"
            )


def _counted(num_rows: dict[str, int]) -> str:
    return ", ".join(f"{number:,} {table}" for table, number in num_rows.items())


def _named(day: int) -> str:
    """Return a day since the epoch as YYYY-MM-DD."""
    return str(date(1970, 1, 1) + timedelta(days=int(day)))
