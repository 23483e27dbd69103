"""The snapshot's pins: embeddings of one version, codes, and what was counted about each pin.

Not for making embeddings: a version is a fixed basis that somebody else folds new pins into.
"""

from pathlib import Path
from typing import NoReturn

import numpy as np
import pyarrow as pa

from pipelines.contracts.arrow import to_list_column
from pipelines.contracts.base import digest_of
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.features import FIRST_SEEN_DAYS
from pipelines.contracts.schemas import NEVER_MS, PIN_TIME, PINS, PINS_FILE, snapshot_schema
from pipelines.contracts.snapshot_files import open_table
from pipelines.event_log.event_index import Bools, Ints
from pipelines.event_log.log_files import EventLog
from pipelines.event_log.reader import (
    Among,
    append_codes,
    append_numbers,
    extra_columns,
    open_file,
    pin_time_problems,
    positions,
    raw_column,
    read_file,
    read_rows,
)
from pipelines.event_log.rules import (
    FoundWidth,
    check_one_width,
    embedding_matrix,
    finding,
    pins_without_embedding,
    require_none,
    time_problems,
)
from pipelines.recipes.own_functions import source_digest
from pipelines.snapshot.pin_counts import Run, trailing_first, trailing_popularity
from pipelines.snapshot.plan import SnapshotPlan
from pipelines.snapshot.shard import PinIndex, write_arrow
from pipelines.snapshot.spill import SpillSummary


def count_pins(
    event_log: EventLog, found: SpillSummary, plan: SnapshotPlan, out: Path, run: Run = map
) -> PinIndex:
    """Write the pins to `out` and return what the kernel needs of them, for all shards.

    The metadata of the pins' Arrow schema carries a digest of what the codes, columns and windows
    mean, and of the source of the recipe's own features. So the digest over a snapshot's files is
    also a digest over their meaning, and two configurations never share a snapshot because their
    bytes happen to be equal.

    Args:
        event_log: where the pins are.
        found: what was counted about them.
        plan: the windows and features.
        out: the snapshot's folder.
        run: calls a function for each of some blocks of pins, one after another or side by side.

    Raises:
        DataContractError: see `read_pins`.
    """
    counted = (found.pin_ids, plan.request_days)
    pins, popularity, first_seen = run(
        lambda make: make(),
        (
            lambda: read_pins(event_log, found, plan),
            lambda: trailing_popularity(
                found.wanted_actions, *counted, plan.popularity_windows, run
            ),
            lambda: trailing_first(found.first_seen, *counted, FIRST_SEEN_DAYS, run),
        ),
    )
    raw = [raw_column(name) for name in plan.number_columns("pins")]
    meaning = {
        "as_of": plan.as_of.isoformat(),
        "features": plan.features.model_dump(mode="json"),
        "functions": {each.name: source_digest(each.name) for each in plan.numeric if each.is_own},
        "snapshot": plan.config.model_dump(mode="json"),
    }
    metadata = {"meaning": digest_of(meaning)}
    write_arrow(out / PINS_FILE, pins.drop_columns(raw).replace_schema_metadata(metadata))
    return PinIndex(
        pin_ids=np.asarray(pins["pin_id"]),
        popularity=popularity,
        first_seen=first_seen,
        # What lies in the file need not lie in memory besides.
        table=open_table(out, PINS_FILE),
        numbers={name: np.asarray(pins[raw_column(name)]) for name in plan.number_columns("pins")},
    )


_ONE_SPACE = (
    "all pins of a version lie in one space, and the model multiplies users' embeddings with them",
    "embed anew what differs, give embeddings of another width a version of their own, or set "
    "snapshot.embedding_version in the recipe to the version of the users' width",
)
"""Why embeddings have one width, and what to do where they have not."""


def read_pins(event_log: EventLog, found: SpillSummary, plan: SnapshotPlan) -> pa.Table:
    """Return the rows of the referenced pins, by pin_id.

    They have the columns of the snapshot's pins, then the number columns that features read.
    Only the referenced pins are looked at, so pins that the log learns of later change nothing.
    Where the log says when it learned of a pin (PIN_TIME), rows that were known before as_of count,
    and a pin without such a row is cold: its embedding is zero, its codes are 0, its numbers are
    missing and its time is NEVER_MS.

    Args:
        event_log: where the `pins` table is.
        found: the pins that impressions or timelines refer to, and the width of the users.
        plan: the embedding version, the features and as_of.

    Raises:
        DataContractError: the version is missing, a pin has two embeddings or, where pins have no
            time, none; an embedding is not finite or has another width than others or the users'.
    """
    version, wanted = plan.config.embedding_version, found.pin_ids
    categorical, numbers = plan.features.categorical_of("pins"), plan.number_columns("pins")
    require_none(pin_time_problems(event_log))  # all files have PIN_TIME, or none has
    has_times = PIN_TIME.name in open_file(event_log, event_log.files_of("pins")[0]).schema.names
    parts, widths = [], []
    for file in event_log.files_of("pins"):
        is_wanted, extra = Among("pin_id", pa.array(wanted)), extra_columns(PINS, categorical)
        rows, _ = read_rows(event_log, [file], is_wanted, extra, numbers, are_texts_coded=True)
        # The version is compared here because a scan cannot filter a dictionary column by it.
        rows = _where(rows, positions(rows["embedding_version"], [version]) == 0)
        if has_times:
            require_none(time_problems(file.path, PIN_TIME.name, rows))
            rows = _where(rows, np.asarray(rows[PIN_TIME.name]) < plan.as_of_ms)
        if len(rows) == 0:
            continue
        embeddings = embedding_matrix(file.path, rows)
        widths.append(FoundWidth(file.path, f"pin_id={rows['pin_id'][0]}", embeddings.shape[1]))
        columns = {"pin_id": rows["pin_id"], "embedding": to_list_column(embeddings)}
        if has_times:
            columns[PIN_TIME.name] = rows[PIN_TIME.name]
        part = append_codes(pa.table(columns), rows, categorical)
        parts.append(append_numbers(file.path, part, rows, numbers))
    if not parts:
        _refuse_missing(event_log, wanted, len(wanted), version)
    of_users = sorted(found.user_widths, key=lambda width: width.path)
    check_one_width([*widths, *of_users], *_ONE_SPACE)
    schema = snapshot_schema(
        "pins", plan.features, embedding_dim=widths[0].embedding_dim, has_pin_times=has_times
    )
    for name in numbers:
        schema = schema.append(pa.field(raw_column(name), pa.float64(), nullable=False))
    table = pa.concat_tables(part.cast(schema) for part in parts)
    pin_ids = np.sort(np.asarray(table["pin_id"]))
    if len(repeated := pin_ids[1:][np.diff(pin_ids) == 0]):
        told = {"version": version, "ids": (("pin_id", int(repeated[0])),)}
        require_none([finding("repeated_embedding", **told, num_rows=len(repeated))])
    if len(missing := np.setdiff1d(wanted, pin_ids, assume_unique=True)):
        if not has_times:
            _refuse_missing(event_log, missing, len(wanted), version)
        table = pa.concat_tables([table, _cold_rows(missing, schema)])
    ids = np.asarray(table["pin_id"])
    return table if (ids[1:] > ids[:-1]).all() else table.take(pa.array(np.argsort(ids)))


def _where(rows: pa.Table, is_wanted: Bools) -> pa.Table:
    """Return some of the rows; mostly all are wanted, and then nothing is copied."""
    return rows if is_wanted.all() else rows.filter(pa.array(is_wanted))


def _cold_rows(pin_ids: Ints, schema: pa.Schema) -> pa.Table:
    """Return the rows of pins whose embedding nobody knew before as_of."""
    width = schema.field("embedding").type.list_size
    columns = {
        "pin_id": pin_ids,
        "embedding": to_list_column(np.zeros((len(pin_ids), width), dtype=np.float32)),
        PIN_TIME.name: np.full(len(pin_ids), NEVER_MS, dtype=np.int64),
    }
    unknown = {pa.int16(): 0, pa.float64(): np.nan}
    for field in schema:
        if field.name not in columns:
            columns[field.name] = np.full(len(pin_ids), unknown[field.type])
    return pa.table(columns, schema=schema)


def _refuse_missing(
    event_log: EventLog, missing: Ints, num_wanted: int, embedding_version: str
) -> NoReturn:
    versions: set[str | None] = set()
    for file in event_log.files_of("pins"):
        rows = read_file(open_file(event_log, file), file, ["embedding_version"], None)
        versions.update(rows["embedding_version"].cast(pa.string()).unique().to_pylist())
    if embedding_version not in versions:
        there = sorted(version for version in versions if version is not None)
        facts = {"version": embedding_version, "uri": event_log.uri, "found": there}
        problem = finding("missing_version", **facts)
    else:
        problem = pins_without_embedding(
            missing[:5].tolist(), len(missing), num_wanted, embedding_version
        )
    raise DataContractError(problem.message)
