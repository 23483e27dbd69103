"""The tables of an event log in a local folder: sorted rows in, Parquet files and a record out.

    <folder>/impressions, actions/day=YYYY-MM-DD/part-<part>.parquet
    <folder>/pins, users/part-<part>.parquet
    <folder>/names/users, names/pins/part-<part>.parquet    where ids were made from names
    <folder>/event_log.json                                 EventLogRecord

Not for checking rows (`batches`, and whoever reads the log), nor for bringing the folder to its
place (`pipelines.sources.publish`).
"""

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.contracts.files import write_json
from pipelines.contracts.schemas import EVENT_LOG_TABLES, PIN_TIME, contract_of
from pipelines.contracts.time import DAY_MS
from pipelines.event_log.record import RECORD_FILE, EventLogRecord, IdKind, Vectors
from pipelines.event_log.rules import EVENT_TIME_COLUMNS


class LogFolder:
    """An event log, or what is added to one, while its files are written.

    Args:
        folder: where the tables go.
        made_by: see `EventLogRecord`.
        id_kinds: what the ids were made from, by column; integers where it says nothing.
    """

    def __init__(
        self, folder: Path, made_by: str, id_kinds: dict[str, IdKind] | None = None
    ) -> None:
        self.folder = folder
        self._made_by = made_by
        self._id_kinds = {"user_id": "integer", "pin_id": "integer"} | (id_kinds or {})
        self._files: list[str] = []
        self._num_rows = dict.fromkeys(EVENT_LOG_TABLES, 0)
        self._days: dict[str, dict[str, int]] = {table: {} for table in EVENT_TIME_COLUMNS}
        self._extra: dict[str, dict[str, str]] = {table: {} for table in EVENT_LOG_TABLES}
        self._versions: dict[str, Vectors] = {}
        self._user_embeddings: Vectors | None = None
        self._has_pin_times = False

    def add(self, table: str, rows: pa.Table, part: str) -> None:
        """Write rows of a table, or names and the ids that were made from them.

        Args:
            table: one of EVENT_LOG_TABLES, or a folder of NAMES.
            rows: its columns and any others; events sorted by their time.
            part: what the files are named after; another one for each call about a table and day.
        """
        if time := EVENT_TIME_COLUMNS.get(table):
            for day, count in write_days(self.folder / table, rows, time, part).items():
                self._days[table][day] = self._days[table].get(day, 0) + count
                self._files.append(f"{table}/day={day}/part-{part}.parquet")
        else:
            write_part(self.folder / table, rows, part)
            self._files.append(f"{table}/part-{part}.parquet")
        if table not in EVENT_LOG_TABLES:
            return
        schema = rows.schema
        own = contract_of(table, schema.names).names
        self._extra[table] |= {f.name: str(f.type) for f in schema if f.name not in own}
        self._num_rows[table] += len(rows)
        if table in ("pins", "users") and len(rows):
            type_ = schema.field("embedding").type
            is_half = type_.value_type == pa.float16()
            vectors = Vectors(
                embedding_dim=type_.list_size, type="float16" if is_half else "float32"
            )
            if table == "users":
                self._user_embeddings = vectors
            else:
                self._has_pin_times |= PIN_TIME.name in schema.names
                versions = pc.unique(rows["embedding_version"]).to_pylist()
                self._versions |= dict.fromkeys(versions, vectors)

    def record(self) -> EventLogRecord:
        """Return what was written so far, as a log of its own."""
        days = {table: dict(sorted(by_day.items())) for table, by_day in self._days.items()}
        return EventLogRecord(
            made_by=self._made_by,
            generation=1,
            embedding_versions=dict(sorted(self._versions.items())),
            user_embeddings=self._user_embeddings,
            id_kinds=self._id_kinds,
            have_pins_times=self._has_pin_times,
            extra_columns=self._extra,
            num_rows=self._num_rows,
            days=days,
            files=tuple(sorted(self._files)),
        )

    def write_record(self) -> None:
        """Write the record beside the tables."""
        write_json(self.folder / RECORD_FILE, self.record())


def write_part(folder: Path, rows: pa.Table, part: str) -> None:
    """Write rows to `<folder>/part-<part>.parquet`."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(rows, folder / f"part-{part}.parquet")


def write_days(folder: Path, rows: pa.Table, time_column: str, part: str) -> dict[str, int]:
    """Write rows, sorted by a time in milliseconds, to one file per UTC day that has any.

    Returns:
        For each of these days, as YYYY-MM-DD, how many rows it got.
    """
    days = np.asarray(rows[time_column]) // DAY_MS
    found, starts, counts = np.unique(days, return_index=True, return_counts=True)
    written = {}
    for day, start, count in zip(found, starts, counts, strict=True):
        name = str(date(1970, 1, 1) + timedelta(days=int(day)))
        write_part(folder / f"day={name}", rows.slice(start, count), part)
        written[name] = int(count)
    return written
