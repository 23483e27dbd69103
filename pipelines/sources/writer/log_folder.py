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

from pipelines.contracts.schemas import EVENT_LOG_TABLES, PIN_TIME, contract_of
from pipelines.contracts.time import DAY_MS
from pipelines.event_log.record import EventLogRecord, IdKind, Vectors
from pipelines.event_log.rules import EVENT_TIME_COLUMNS


def write_table(folder: Path, table: str, rows: pa.Table, part: str, time: str = "") -> None:
    """Write rows of a table below a folder, those of events to one file per UTC day that has any.

    Args:
        folder: where the table goes.
        table: its path there.
        rows: those of events sorted by their time.
        part: what the files are named after; another one for each call about a table and day.
        time: the column of the events' time in ms, where the contract does not say it.
    """
    places = {table: rows}
    if time := time or EVENT_TIME_COLUMNS.get(table, ""):
        days = np.asarray(rows[time]) // DAY_MS
        found = np.unique(days, return_index=True, return_counts=True)
        places = {
            f"{table}/day={date(1970, 1, 1) + timedelta(days=int(day))}": rows.slice(start, count)
            for day, start, count in zip(*found, strict=True)
        }
    for place, some in places.items():
        (folder / place).mkdir(parents=True, exist_ok=True)
        pq.write_table(some, folder / place / f"part-{part}.parquet")


def record_of(
    folder: Path, made_by: str, id_kinds: dict[str, IdKind] | None = None
) -> EventLogRecord:
    """Return the record of a log, or of what is added to one, from its files.

    Args:
        folder: where the tables are.
        made_by: see `EventLogRecord`.
        id_kinds: what the ids were made from, by column; integers where it says nothing.
    """
    num_rows = dict.fromkeys(EVENT_LOG_TABLES, 0)
    days: dict[str, dict[str, int]] = {table: {} for table in EVENT_TIME_COLUMNS}
    extra: dict[str, dict[str, str]] = {table: {} for table in EVENT_LOG_TABLES}
    versions: dict[str, Vectors] = {}
    user_embeddings, has_pin_times = None, False
    files = []
    for table in (*EVENT_LOG_TABLES, "names"):
        for path in sorted((folder / table).rglob("*.parquet")):
            files.append(path.relative_to(folder).as_posix())
            if table == "names":
                continue
            with pq.ParquetFile(path) as file:
                count, schema = file.metadata.num_rows, file.schema_arrow
                pins = file.read(["embedding_version"]) if table == "pins" else None
            own = contract_of(table, schema.names).names
            extra[table] |= {f.name: str(_in_arrow(f.type)) for f in schema if f.name not in own}
            num_rows[table] += count
            if table in EVENT_TIME_COLUMNS:
                day = path.parent.name.removeprefix("day=")
                days[table][day] = days[table].get(day, 0) + count
            elif count:
                type_ = schema.field("embedding").type
                number = "float16" if type_.value_type == pa.float16() else "float32"
                vectors = Vectors(embedding_dim=type_.list_size, type=number)
                if pins is None:
                    user_embeddings = vectors
                else:
                    has_pin_times |= PIN_TIME.name in schema.names
                    found = pc.unique(pins["embedding_version"]).to_pylist()
                    versions |= dict.fromkeys(found, vectors)
    return EventLogRecord(
        made_by=made_by,
        generation=1,
        embedding_versions=dict(sorted(versions.items())),
        user_embeddings=user_embeddings,
        id_kinds={"user_id": "integer", "pin_id": "integer"} | (id_kinds or {}),
        have_pins_times=has_pin_times,
        extra_columns=extra,
        num_rows=num_rows,
        days={table: dict(sorted(by_day.items())) for table, by_day in days.items()},
        files=tuple(sorted(files)),
    )


def _in_arrow(type_: pa.DataType) -> pa.DataType:
    """Return a file's type as it was written: a list's field is named item, in Parquet element."""
    if pa.types.is_fixed_size_list(type_):
        return pa.list_(_in_arrow(type_.value_type), type_.list_size)
    for is_kind, make in ((pa.types.is_list, pa.list_), (pa.types.is_large_list, pa.large_list)):
        if is_kind(type_):
            return make(_in_arrow(type_.value_type))
    return type_
