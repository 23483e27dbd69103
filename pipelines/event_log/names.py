"""Names that a log's ids of users and pins were made from, where its writer keeps them.

    <uri>/names/users/part-<part>.parquet, <uri>/names/pins/part-<part>.parquet    id, name

Not for making an id of a name (`pipelines.sources.writer`). Tested in
tests/pipelines/event_log/test_reader.py.
"""

from collections.abc import Iterable
from typing import Literal

import pyarrow as pa
import pyarrow.dataset as ds

from pipelines.event_log.log_files import EventLog, LogFile
from pipelines.event_log.reader import open_file, read_file
from pipelines.event_log.record import NAMES, RECORD_FILE, EventLogRecord
from pipelines.storage import exists, join, open_filesystem, read_model

IdColumn = Literal["user_id", "pin_id"]


def name_files(uri: str, record: EventLogRecord) -> tuple[LogFile, ...]:
    """Return a log's files of names; a file's table is its folder, one of NAMES' values."""
    _, root = open_filesystem(uri)
    return tuple(
        LogFile(folder, f"{root}/{name}", None, 0)
        for folder in NAMES.values()
        for name in record.files
        if name.startswith(f"{folder}/")
    )


def names_of(event_log: EventLog, column: IdColumn, ids: Iterable[int]) -> dict[int, str]:
    """Return the names of some ids of a column, as far as the log has names.

    Args:
        event_log: The log.
        column: Whose ids they are.
        ids: Any whole numbers; one that is no id of the log has no name.

    Raises:
        DataContractError: the log's record or a file of names is damaged.
        TransientStorageError: the storage failed.
    """
    record_uri = join(event_log.uri, RECORD_FILE)
    wanted = sorted({each for each in ids if -(2**63) <= each < 2**63})
    if not wanted or not exists(record_uri):
        return {}
    record = read_model(record_uri, EventLogRecord)
    found: dict[int, str] = {}
    is_wanted = ds.field("id").isin(pa.array(wanted, pa.int64()))
    for file in name_files(event_log.uri, record):
        if file.table == NAMES[column]:
            rows = read_file(open_file(event_log, file), file, ["id", "name"], is_wanted)
            found.update(zip(rows["id"].to_pylist(), rows["name"].to_pylist(), strict=True))
    return found
