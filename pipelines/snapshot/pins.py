"""The snapshot's pins: embeddings of one version, codes, and what was counted about each pin.

Not for making embeddings: a version is a fixed basis that somebody else folds new pins into.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from pipelines.contracts.arrow import to_list_column
from pipelines.contracts.base import digest_of
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.schemas import PIN_ROWS, PINS, PINS_FILE, snapshot_schema
from pipelines.contracts.snapshot_files import open_table
from pipelines.event_log import checks
from pipelines.event_log.categories import append_codes, extra_columns
from pipelines.event_log.event_index import Ints
from pipelines.event_log.numbers import append_numbers, raw_column
from pipelines.event_log.popularity import Popularity, trailing_popularity
from pipelines.event_log.reader import EventLog, open_file, read_file, read_rows
from pipelines.snapshot.features.own import source_digests
from pipelines.snapshot.plan import SnapshotPlan
from pipelines.snapshot.shard import PinIndex
from pipelines.snapshot.spill import SpillSummary
from pipelines.snapshot.tables import write_arrow

_POPULARITY_FILE = "popularity.arrow"
_FACTS_FILE = "pin_facts.arrow"
_FIRST_KNOWN = "first_known_at"


def write_pins(
    event_log: EventLog, found: SpillSummary, plan: SnapshotPlan, out: Path, scratch: Path
) -> int:
    """Write the pins to `out` and, for the kernel, their popularity to `scratch`; count the pins.

    The metadata of the pins' Arrow schema carries a digest of what the codes, columns and windows
    mean, and of the source of the recipe's own features. So the digest over a snapshot's files is
    also a digest over their meaning, and two configurations never share a snapshot because their
    bytes happen to be equal.

    Raises:
        DataContractError: see `read_pins`.
    """
    pins = read_pins(event_log, found.pin_ids, plan)
    names = snapshot_schema("pins", plan.features).names
    meaning = {
        "as_of": plan.as_of.isoformat(),
        "features": plan.features.model_dump(mode="json"),
        "functions": source_digests(plan.numeric),
        "snapshot": plan.config.model_dump(mode="json"),
    }
    metadata = {"meaning": digest_of(meaning)}
    write_arrow(out / PINS_FILE, pins.select(names).replace_schema_metadata(metadata))
    popularity = trailing_popularity(
        found.wanted_actions, found.pin_ids, plan.request_days, plan.popularity_windows
    )
    totals = {str(window): counts for window, counts in popularity.totals.items()}
    write_arrow(scratch / _POPULARITY_FILE, pa.table({"key": popularity.keys} | totals))
    facts = pins.drop_columns(names).append_column(
        _FIRST_KNOWN, pa.array(found.first_seen.at(found.pin_ids))
    )
    write_arrow(scratch / _FACTS_FILE, facts)
    return len(pins)


def open_pin_index(out: Path, scratch: Path, plan: SnapshotPlan) -> PinIndex:
    """Return what the kernel needs of the pins that `write_pins` wrote."""
    pins, facts = open_table(out, PINS_FILE), open_table(scratch, _FACTS_FILE)
    popularity = open_table(scratch, _POPULARITY_FILE)
    totals = {window: np.asarray(popularity[str(window)]) for window in plan.popularity_windows}
    return PinIndex(
        pin_ids=np.asarray(pins["pin_id"]),
        popularity=Popularity(plan.request_days, len(pins), np.asarray(popularity["key"]), totals),
        first_known_at=np.asarray(facts[_FIRST_KNOWN]),
        table=pins,
        numbers={name: np.asarray(facts[raw_column(name)]) for name in plan.number_columns("pins")},
    )


def read_pins(event_log: EventLog, pin_ids: Ints, plan: SnapshotPlan) -> pa.Table:
    """Return the rows of the given pins, in their order.

    They have the columns of the snapshot's pins, then the number columns that features read.

    Only the given pins are looked at, so pins that the log learns of later change nothing.

    Args:
        event_log: where the `pins` table is.
        pin_ids: the pins that impressions or timelines refer to, sorted.
        plan: for the embedding version and the features.

    Raises:
        DataContractError: the version is missing, a pin has no embedding or two, or one is not
            finite.
    """
    embedding_version = plan.config.embedding_version
    categorical, numbers = plan.features.categorical_of("pins"), plan.number_columns("pins")
    extra = extra_columns(PINS, categorical)
    parts = []
    for file in event_log.files_of("pins"):
        # A null pin_id is read too, so that it is refused and not passed over.
        is_wanted = ds.field("pin_id").isin(pa.array(pin_ids)) | ds.field("pin_id").is_null()
        rows = read_rows(event_log, file, extra, is_wanted, numbers)
        # The version is compared here because a scan cannot filter a dictionary column by it.
        rows = rows.filter(pc.equal(rows["embedding_version"], embedding_version))
        embeddings = checks.embedding_matrix(file.path, "pin_id", rows)
        part = pa.table([rows["pin_id"], to_list_column(embeddings)], schema=PIN_ROWS)
        part = append_codes(part, rows, categorical)
        parts.append(append_numbers(file.path, part, rows, numbers))
    table = pa.concat_tables(parts)
    table = table.take(pa.array(np.argsort(np.asarray(table["pin_id"]), kind="stable")))
    _check_complete(event_log, np.asarray(table["pin_id"]), pin_ids, embedding_version)
    return table


def _check_complete(event_log: EventLog, found: Ints, wanted: Ints, embedding_version: str) -> None:
    repeated = found[1:][np.diff(found) == 0]
    if len(repeated):
        raise DataContractError(
            f"pins: pin {repeated[0]} has more than one embedding of version "
            f"{embedding_version!r} ({len(repeated)} such rows); expected one per (pin_id, "
            f"embedding_version); remove the repeated rows"
        )
    missing = np.setdiff1d(wanted, found, assume_unique=True)
    if len(missing) == 0:
        return
    versions = _versions(event_log)
    if embedding_version not in versions:
        raise DataContractError(
            f"pins: no embedding of version {embedding_version!r} at {event_log.uri}; found the "
            f"versions {versions}; add that version to the table or set "
            f"snapshot.embedding_version in the recipe"
        )
    examples = ", ".join(str(pin) for pin in missing[:5])
    raise DataContractError(
        f"pins: {len(missing)} of {len(wanted)} pins in the impressions and actions have no "
        f"embedding of version {embedding_version!r}, first: {examples}; expected one for each; "
        f"fold these pins into the version's basis and add their rows"
    )


def _versions(event_log: EventLog) -> list[str]:
    """Return the embedding versions that the log's pins have, for a message."""
    found: set[str] = set()
    for file in event_log.files_of("pins"):
        rows = read_file(open_file(event_log, file), file, ["embedding_version"], None)
        found.update(rows["embedding_version"].cast(pa.string()).unique().to_pylist())
    return sorted(version for version in found if version is not None)
