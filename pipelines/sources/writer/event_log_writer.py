"""`EventLogWriter`: somebody's tables in, an event log out, whole or not at all.

Not for what the rows mean, nor for tables that an adapter has made already
(`pipelines.sources.writer.log_folder`).
"""

import contextlib
import itertools
import logging
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pipelines import storage
from pipelines.contracts.errors import ConfigurationError, DataContractError
from pipelines.contracts.schemas import EVENT_LOG_TABLES, USERS, with_embedding_dim
from pipelines.event_log.record import NAMES, EventLogRecord
from pipelines.sources.publish import WRITER, Existing, find_writers_log, publish_writers_log
from pipelines.sources.writer.batches import Settled, normalise, tables_of
from pipelines.sources.writer.kept_rows import KEYS, KeptRows
from pipelines.sources.writer.log_folder import record_of, write_table

log = logging.getLogger(__name__)


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
    passed on, as a feature; its type stays the same, and rows of batches without it have nulls.

    Ids of users and of pins are integers, or texts, which become 64-bit hashes
    (`batches.id_of`); the names stand below names/ in the log. Embeddings are lists (or a
    two-dimensional array) of float16, float32 or float64 numbers of one width in a version;
    they become float32.

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
        self._rows: KeptRows | None = None  # while the block lasts
        self._scratch = Path()
        self._existing: Existing | None = None
        self._settled = Settled(embedding_version)
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
            self._existing = find_writers_log(self.uri)
            parent = self.uri.rsplit("/", 1)[0]
            self._scratch = stack.enter_context(storage.scratch_folder(parent))
            rows = KeptRows(self._scratch, self.uri)
            self._rows = stack.enter_context(contextlib.closing(rows))
            self._stack = stack.pop_all()
        self._num_batches = dict.fromkeys(EVENT_LOG_TABLES, 0)
        self._settled = Settled(self._version)
        if self._existing:
            record = self._existing.record
            self._settled = Settled.by_log(record, self._version, self._replaces_days)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Publish everything where the block ended well; give the place free in any case."""
        with self._stack:
            rows, self._rows = self._rows, None
            if kind is None and rows is not None:
                self._publish(rows)

    def impressions(self, batch: Any) -> None:
        """Take impressions; if they break the contract (`DataContractError`), none of them."""
        self._take("impressions", batch)

    def actions(self, batch: Any) -> None:
        """Take actions; if they break the contract (`DataContractError`), none of them."""
        self._take("actions", batch)

    def pins(self, batch: Any) -> None:
        """Take pins and embeddings; if they break the contract (`DataContractError`), none."""
        self._take("pins", batch)

    def users(self, batch: Any) -> None:
        """Take what was known of users at some instants; as with the other tables, all or none."""
        self._take("users", batch)

    def _take(self, table: str, batch: Any) -> None:
        if self._rows is None:
            raise ConfigurationError(
                f"EventLogWriter({self.uri!r}) takes {table} outside of its block; expected it "
                f"within `with EventLogWriter(...) as writer:`; move the call into the block"
            )
        self._num_batches[table] += 1
        place = f"{table}, batch {self._num_batches[table]}"
        first_row, settled = 0, self._settled
        with self._rows.all_or_nothing():
            for given in tables_of(batch, place):
                # Rows are counted from the start of a part, which a large batch has several of.
                part = f"{place} from row {first_row:,}" if first_row else place
                rows, names, settled = normalise(table, given, settled, part)
                for each, found in ((table, rows), *names.items()):
                    self._rows.add(each, found)
                first_row += len(given)
        self._settled = settled

    def _publish(self, rows: KeptRows) -> None:
        given = {table: rows.num_rows(table) for table in EVENT_LOG_TABLES}
        missing = [table for table in ("impressions", "actions", "pins") if not given[table]]
        if self._existing is None and missing:
            raise DataContractError(
                f"a new event log at {self.uri} would have no {' and no '.join(missing)}; "
                f"expected rows of impressions, actions and pins; give them in the same block"
            )
        folder = self._scratch / "event_log"
        folder.mkdir()
        with storage.translated_errors(self.uri, "writing the event log for"):
            increment = self._assemble(rows, folder)
        if not increment.files:
            log.info("%s has all that was given already", self.uri)
            return
        publish_writers_log(folder, self.uri, increment, self._existing)
        log.info("wrote %s: %s", self.uri, _counted(increment.num_rows))

    def _assemble(self, rows: KeptRows, folder: Path) -> EventLogRecord:
        """Write the files of the log, or of what is added to it, and return their record."""
        existing, widths = self._existing, self._settled.widths
        generation = existing.record.generation + 1 if existing else 1
        # Two writers at once on an object store must not write over each other's files.
        own = "" if storage.is_local(self.uri) else f"-{uuid.uuid4().hex[:8]}"
        parts = (f"{generation:06d}-{number:06d}{own}" for number in itertools.count(1))
        if rows.num_rows("users") and not self._settled.has_column["users"]:
            if not widths:
                raise DataContractError(
                    f"the users have no column 'embedding', and no pins of version "
                    f"{self._version!r} say how wide their zeros are; expected pins of that "
                    f"version in the log or in this block; give them, or the users' embeddings"
                )
            rows.embed_with_zeros(widths.get("users") or widths["pins"])
        rows.number_positions()
        known = existing.log if existing else None
        passed_over = {table: rows.pass_over_repeats(table, known, self._version) for table in KEYS}
        passed_over = {table: passed_over[table] for table in ("pins", "users")}
        if any(passed_over.values()):
            log.info(
                "passed over rows that are there already, the same in every column: %s",
                _counted(passed_over),
            )
        for table in (*EVENT_LOG_TABLES, *NAMES.values()):
            for found in rows.files_of(table):
                write_table(folder, table, found, next(parts))
        if existing is None and not rows.num_rows("users"):
            # A log has every table, also one without rows.
            users = with_embedding_dim(USERS, widths["pins"])
            write_table(folder, "users", users.empty_table(), next(parts))
        return record_of(folder, WRITER, self._settled.id_kinds)


def _counted(num_rows: dict[str, int]) -> str:
    return ", ".join(f"{number:,} {table}" for table, number in num_rows.items())
