"""The snapshot's pins: embeddings of one version, codes, and popularity on each day with requests.

Not for making embeddings: a version is a fixed basis that somebody else folds new pins into.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from pipelines.contracts.arrow import to_list_column
from pipelines.contracts.base import digest_of
from pipelines.contracts.config import FeatureConfig
from pipelines.contracts.schemas import PIN_ROWS, PINS, PINS_FILE
from pipelines.contracts.snapshot_files import open_table
from pipelines.event_log import checks
from pipelines.event_log.categories import append_codes, extra_columns
from pipelines.event_log.cross_rules import (
    missing_version,
    pins_without_embedding,
    repeated_embedding,
)
from pipelines.event_log.event_index import Ints
from pipelines.event_log.findings import require_none
from pipelines.event_log.popularity import Popularity, trailing_popularity
from pipelines.event_log.reader import EventLog, open_file, read_file, read_rows
from pipelines.snapshot.plan import SnapshotPlan
from pipelines.snapshot.shard import PinIndex
from pipelines.snapshot.spill import SpillSummary
from pipelines.snapshot.tables import write_arrow

_POPULARITY_FILE = "popularity.arrow"


def write_pins(
    event_log: EventLog, found: SpillSummary, plan: SnapshotPlan, out: Path, scratch: Path
) -> int:
    """Write the pins to `out` and, for the kernel, their popularity to `scratch`; count the pins.

    The metadata of the pins' Arrow schema carries a digest of what the codes, columns and windows
    mean. So the digest over a snapshot's files is also a digest over their meaning, and two
    configurations never share a snapshot because their bytes happen to be equal.

    Raises:
        DataContractError: see `read_pins`.
    """
    pins = read_pins(event_log, found.pin_ids, plan.config.embedding_version, plan.features)
    meaning = {
        "as_of": plan.as_of.isoformat(),
        "features": plan.features.model_dump(mode="json"),
        "snapshot": plan.config.model_dump(mode="json"),
    }
    write_arrow(out / PINS_FILE, pins.replace_schema_metadata({"meaning": digest_of(meaning)}))
    popularity = trailing_popularity(
        found.wanted_actions, found.pin_ids, plan.request_days, plan.config.popularity_days
    )
    columns = {"key": popularity.keys, "total": popularity.totals}
    write_arrow(scratch / _POPULARITY_FILE, pa.table(columns))
    return len(pins)


def open_pin_index(out: Path, scratch: Path, plan: SnapshotPlan) -> PinIndex:
    """Return what the kernel needs of the pins that `write_pins` wrote."""
    pin_ids = np.asarray(open_table(out, PINS_FILE)["pin_id"])
    popularity = open_table(scratch, _POPULARITY_FILE)
    keys, totals = (np.asarray(popularity[name]) for name in ("key", "total"))
    return PinIndex(pin_ids, Popularity(plan.request_days, len(pin_ids), keys, totals))


def read_pins(
    event_log: EventLog, pin_ids: Ints, embedding_version: str, features: FeatureConfig
) -> pa.Table:
    """Return the rows of the given pins, in their order, by the schema of the snapshot's pins.

    Only the given pins are looked at, so pins that the log learns of later change nothing.

    Args:
        event_log: where the `pins` table is.
        pin_ids: the pins that impressions or timelines refer to, sorted.
        embedding_version: the version to take.
        features: for the categorical features of pins.

    Raises:
        DataContractError: the version is missing, a pin has no embedding or two, or one is not
            finite.
    """
    categorical = features.categorical_of("pins")
    extra = extra_columns(PINS, categorical)
    parts = []
    for file in event_log.files_of("pins"):
        # A null pin_id is read too, so that it is refused and not passed over.
        is_wanted = ds.field("pin_id").isin(pa.array(pin_ids)) | ds.field("pin_id").is_null()
        rows = read_rows(event_log, file, extra, is_wanted)
        # The version is compared here because a scan cannot filter a dictionary column by it.
        rows = rows.filter(pc.equal(rows["embedding_version"], embedding_version))
        embeddings = checks.embedding_matrix(file.path, "pin_id", rows)
        part = pa.table([rows["pin_id"], to_list_column(embeddings)], schema=PIN_ROWS)
        parts.append(append_codes(part, rows, categorical))
    table = pa.concat_tables(parts)
    table = table.take(pa.array(np.argsort(np.asarray(table["pin_id"]), kind="stable")))
    _check_complete(event_log, np.asarray(table["pin_id"]), pin_ids, embedding_version)
    return table


def _check_complete(event_log: EventLog, found: Ints, wanted: Ints, embedding_version: str) -> None:
    repeated = found[1:][np.diff(found) == 0]
    if len(repeated):
        require_none([repeated_embedding(repeated[0], embedding_version, len(repeated))])
    missing = np.setdiff1d(wanted, found, assume_unique=True)
    if len(missing) == 0:
        return
    versions = _versions(event_log)
    if embedding_version not in versions:
        require_none([missing_version(event_log.uri, embedding_version, versions)])
    first = missing[:5].tolist()
    counts = len(missing), len(wanted)
    require_none([pins_without_embedding(first, *counts, embedding_version)])


def _versions(event_log: EventLog) -> list[str]:
    """Return the embedding versions that the log's pins have, for a message."""
    found: set[str] = set()
    for file in event_log.files_of("pins"):
        rows = read_file(open_file(event_log, file), file, ["embedding_version"], None)
        found.update(rows["embedding_version"].cast(pa.string()).unique().to_pylist())
    return sorted(version for version in found if version is not None)
