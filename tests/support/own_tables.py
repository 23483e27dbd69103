"""Somebody's own small tables, as batches for `EventLogWriter`, and what a log holds of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from pipelines.contracts.schemas import EVENT_LOG_TABLES
from pipelines.event_log.log_files import open_event_log
from pipelines.event_log.reader import open_file, read_file
from pipelines.event_log.record import EventLogRecord, read_record
from pipelines.sources.event_log_writer import EventLogWriter
from pipelines.storage import to_uri

VERSION = "mine-1"
WIDTH = 6


def shown_on(day: int, num_requests: int = 3) -> pd.DataFrame:
    """Return requests of three pins each on a day of January 2024, by users u0 to u2."""
    number = np.repeat(np.arange(num_requests), 3)
    return pd.DataFrame(
        {
            "request_id": [f"{day}-{n}" for n in number],
            "user_id": [f"u{n}" for n in number],
            "pin_id": [f"p{n}" for n in range(3)] * num_requests,
            "impressed_at": pd.Timestamp(2024, 1, day, 8) + pd.to_timedelta(number, unit="h"),
        }
    )


def acted_on(day: int) -> pd.DataFrame:
    """Return two actions on a day of January 2024."""
    return pd.DataFrame(
        {
            "user_id": ["u0", "u1"],
            "pin_id": ["p1", "p2"],
            "action_type": ["repin", "click"],
            "acted_at": [pd.Timestamp(2024, 1, day, 9), pd.Timestamp(2024, 1, day, 7)],
        }
    )


def pins(first: int = 0, last: int = 3, width: int = WIDTH, type_: Any = np.float32) -> dict:
    """Return pins p<first> to p<last - 1>, whose embeddings are their numbers."""
    numbers = np.arange(first, last)
    embeddings = np.repeat(numbers[:, None] + 1, width, axis=1).astype(type_)
    return {"pin_id": [f"p{n}" for n in numbers], "embedding": embeddings}


def users(day: int = 1, width: int = WIDTH) -> dict[str, Any]:
    """Return a row of u0 and of u1 at a midnight of January 2024."""
    at = pa.array([pd.Timestamp(2024, 1, day)] * 2, pa.timestamp("s", "UTC"))
    return {"user_id": ["u0", "u1"], "as_of": at, "embedding": np.ones((2, width), np.float32)}


def give(location: str | Path, version: str = VERSION, **given: Any) -> None:
    """Write batches by table in one block; a list is several batches, and no table an option."""
    options = {name: given.pop(name) for name in given.keys() - EVENT_LOG_TABLES.keys()}
    with EventLogWriter(location, version, **options) as writer:
        for table, found in given.items():
            for batch in found if isinstance(found, list) else [found]:
                getattr(writer, table)(batch)


def give_log(location: str | Path, version: str = VERSION, **given: Any) -> None:
    """Write a new log with these batches, and usual ones of the tables that it needs besides."""
    usual = {"pins": pins(), "impressions": shown_on(2), "actions": acted_on(2)}
    give(location, version, **usual | given)


def write_own_log(location: str | Path, *days: int) -> None:
    """Write a log of some days, with pins and users."""
    events = {"impressions": [*map(shown_on, days)], "actions": [*map(acted_on, days)]}
    give(location, pins=pins(), users=users(), **events)


def contents(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def record_of(location: str | Path) -> EventLogRecord:
    found = read_record(to_uri(location))
    assert found is not None
    return found


def rows_of_log(location: str | Path, table: str) -> list[dict[str, Any]]:
    """Return a table's rows as the reader finds them, file after file."""
    log = open_event_log(to_uri(location))
    files = [(file, open_file(log, file)) for file in log.files_of(table)]
    return [
        row
        for file, dataset in files
        for row in read_file(dataset, file, dataset.schema.names, None).to_pylist()
    ]
