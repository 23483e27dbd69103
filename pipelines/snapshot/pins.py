"""The snapshot's pins: embeddings of one version and codes, for every pin that is referenced.

Not for making embeddings; a version is a fixed basis that somebody else folds new pins into.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from pipelines.contracts.config import FeatureConfig
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.schemas import PIN_ROWS, PINS
from pipelines.event_log import checks
from pipelines.event_log.reader import EventLog, open_file, read_file
from pipelines.snapshot.features import Ints
from pipelines.snapshot.spill import encode_categories
from pipelines.snapshot.tables import embeddings_of


def read_pins(
    event_log: EventLog, pin_ids: Ints, embedding_version: str, features: FeatureConfig
) -> pa.Table:
    """Return PIN_ROWS + codes for the given pins, in their order.

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
    extra = tuple(f.name for f in categorical if f.name not in PINS.names)
    parts = []
    for file in event_log.files_of("pins"):
        dataset = open_file(event_log, file)
        checks.check_columns(file.path, dataset.schema, PINS, extra)
        # The version is compared here, not in the scan: a dictionary column has no such filter.
        rows = read_file(
            dataset,
            file,
            [*PINS.names, *extra],
            ds.field("pin_id").isin(pa.array(pin_ids)) | ds.field("pin_id").is_null(),
        )
        rows = checks.cast_to_schema(file.path, rows, PINS)
        rows = rows.filter(pc.equal(rows["embedding_version"], embedding_version))
        embeddings = checks.embedding_matrix(file.path, "pin_id", rows)
        columns: list[pa.Array | npt.NDArray] = [rows["pin_id"], embeddings_of(embeddings)]  # type: ignore[type-arg]
        part = pa.table(columns, schema=PIN_ROWS)
        for field, codes in encode_categories(rows, categorical):
            part = part.append_column(field, codes)
        parts.append(part)
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
    """Return the versions in the table, for a message."""
    found: set[str] = set()
    for file in event_log.files_of("pins"):
        rows = read_file(open_file(event_log, file), file, ["embedding_version"], None)
        found.update(rows["embedding_version"].cast(pa.string()).unique().to_pylist())
    return sorted(version for version in found if version is not None)
