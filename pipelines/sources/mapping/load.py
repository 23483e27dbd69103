"""From a mapping to an event log: each table is read, checked as it is written, whole or not."""

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime, time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from pipelines import storage
from pipelines.contracts.arrow import to_list_column
from pipelines.contracts.time import to_ms
from pipelines.event_log.log_files import open_event_log
from pipelines.event_log.reader import open_file, read_file
from pipelines.event_log.record import read_record
from pipelines.event_log.rules import embedding_matrix
from pipelines.sources.event_log_writer import EventLogWriter, id_of
from pipelines.sources.mapping.draw import draw
from pipelines.sources.mapping.spec import Mapping, read_mapping
from pipelines.sources.mapping.tables import Tables
from pipelines.sources.mapping.vectors import co_occurrence_of, vectors_of

_CHOSEN = """
SELECT user_id, pin_id, count(*) AS num FROM actions WHERE acted_at < ? GROUP BY ALL ORDER BY ALL
"""


def import_log(
    path: Path, location: str, replace_days: bool = False, late_rows: bool = False
) -> str:
    """Write the event log of a mapping, or add its rows to the log that is there; return its URI.

    Args:
        path: The mapping.
        location: Path or URI of the log.
        replace_days: Whether days that the log has are written anew; else they are refused.
        late_rows: Whether rows are added to days that the log has.

    Raises:
        ConfigurationError: the mapping is not valid, or names no files.
        DataContractError: a source cannot be read, or its rows break the contract; nothing is
            written then.
    """
    mapping = read_mapping(path)
    candidates = mapping.candidates.sentence if mapping.candidates else ""
    with (
        storage.scratch_folder(storage.to_uri(location).rsplit("/", 1)[0]) as scratch,
        EventLogWriter(
            location,
            mapping.embedding_version,
            candidates=candidates,
            replace_days=replace_days,
            late_rows=late_rows,
            complete_to=mapping.complete_to,
        ) as writer,
    ):
        tables = Tables(path.resolve().parent, scratch)
        with contextlib.closing(tables.database):
            _write(tables, mapping, writer)
    return writer.uri


def _write(tables: Tables, mapping: Mapping, writer: EventLogWriter) -> None:
    """Give all rows to the writer; pins first, whose embeddings are as wide as the users'."""
    texts = mapping.vectors.texts if mapping.vectors else ()
    for name, table in mapping.tables.items():
        tables.add(name, table, texts if name == "pins" else ())
    tables.agree_on_ids(mapping.tables)
    for rows in _with_vectors(tables, mapping, writer.uri):
        writer.pins(rows)
    if mapping.candidates is not None:
        for rows in draw(tables, mapping.candidates):
            writer.impressions(rows)
    for each in ("impressions", "actions", "users"):
        if each in mapping.tables:
            for rows in tables.rows(f"FROM {each}", f"batches of {each}"):
                getattr(writer, each)(rows)


def _with_vectors(tables: Tables, mapping: Mapping, uri: str) -> Iterator[pa.Table]:
    """Yield the rows of pins with an embedding: of texts, and then of who chose them before a day.

    A log that is added to keeps the vectors that it has. Pins with vectors of choices are not known
    before the day, so that no model is trained on requests that its vectors were made of.
    """
    how, query = mapping.vectors, "SELECT * FROM pins"
    if how and how.co_occurrence:
        day_ms = to_ms(datetime.combine(how.co_occurrence.to, time(), UTC))
        chosen = _stored(uri, mapping.embedding_version, how.width) or co_occurrence_of(
            tables.database.sql(_CHOSEN, params=[day_ms]).to_arrow_table(), how.width
        )
        has_time = "known_at" in mapping.tables["pins"].columns
        known = f"REPLACE (greatest(known_at, {day_ms}) AS known_at)" if has_time else ""
        query = f"SELECT * {known or f', {day_ms}::BIGINT AS known_at'} FROM pins"
    for rows in tables.rows(query, "batches of pins"):
        parts = []
        if how and how.texts:
            columns = [rows[name].to_pylist() for name in how.texts]
            texts = [" ".join(filter(None, each)) for each in zip(*columns, strict=True)]
            parts.append(vectors_of(texts, how.width))
        if how and how.co_occurrence:
            later = np.zeros(how.width, np.float32)
            ids = (
                id_of(pin) if isinstance(pin, str) else pin for pin in rows["pin_id"].to_pylist()
            )
            parts.append(np.stack([chosen.get(pin, later) for pin in ids]))
        found = to_list_column(np.concatenate(parts, axis=1)) if parts else None
        yield rows.append_column("embedding", found) if parts else rows


def _stored(uri: str, version: str, width: int) -> dict[int, np.ndarray]:
    """Return the last numbers of the embeddings that a log has of a version, by pin."""
    if not (known := read_record(uri)) or not known.files:
        return {}
    event_log, found = open_event_log(uri), dict[int, np.ndarray]()
    is_wanted = ds.field("embedding_version") == version
    for file in event_log.files_of("pins"):
        rows = read_file(open_file(event_log, file), file, ["pin_id", "embedding"], is_wanted)
        if len(rows):
            matrix = embedding_matrix(file.path, rows)[:, -width:]
            found |= zip(rows["pin_id"].to_pylist(), matrix, strict=True)
    return found
