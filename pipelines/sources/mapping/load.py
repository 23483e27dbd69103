"""From a mapping to an event log: each table is read, checked as it is written, whole or not."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from pipelines import storage
from pipelines.contracts.arrow import to_list_column
from pipelines.sources.event_log_writer import EventLogWriter
from pipelines.sources.mapping.draw import draw
from pipelines.sources.mapping.spec import Mapping, read_mapping
from pipelines.sources.mapping.tables import Tables
from pipelines.sources.mapping.vectors import vectors_of


def import_log(path: Path, location: str, replace_days: bool = False) -> str:
    """Write the event log of a mapping, or add its rows to the log that is there; return its URI.

    Args:
        path: The mapping.
        location: Path or URI of the log.
        replace_days: Whether days that the log has are written anew; else they are refused.

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
            location, mapping.embedding_version, candidates=candidates, replace_days=replace_days
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
    for rows in _with_vectors(tables, mapping):
        writer.pins(rows)
    if mapping.candidates is not None:
        for rows in draw(tables, mapping.candidates):
            writer.impressions(rows)
    for each in ("impressions", "actions", "users"):
        if each in mapping.tables:
            for rows in tables.rows(f"FROM {each}", f"batches of {each}"):
                getattr(writer, each)(rows)


def _with_vectors(tables: Tables, mapping: Mapping) -> Iterator[pa.Table]:
    for rows in tables.rows("FROM pins", "batches of pins"):
        if mapping.vectors is None:
            yield rows
            continue
        columns = [rows[name].to_pylist() for name in mapping.vectors.texts]
        texts = [" ".join(filter(None, each)) for each in zip(*columns, strict=True)]
        found = to_list_column(vectors_of(texts, mapping.vectors.width))
        yield rows.append_column("embedding", found)
