"""Spoils a planted event log, so that a model trained on it is worse for a known reason."""

from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.contracts.time import to_ms


def shuffle_actions(folder: Path, start: datetime, end: datetime, seed: int = 5) -> int:
    """Move every action of [start, end) to a random candidate of its own request.

    Label rates, requests and times stay as they were; what users like is lost. Returns how many
    actions were moved.
    """
    rng = np.random.default_rng(seed)
    candidates: dict[str, np.ndarray] = {}
    for path in sorted((folder / "impressions").rglob("*.parquet")):
        table = pq.read_table(path, columns=["request_id", "pin_id"]).to_pandas()
        for request_id, pins in table.groupby("request_id")["pin_id"]:
            candidates[request_id] = pins.to_numpy()
    num_moved = 0
    for path in sorted((folder / "actions").rglob("*.parquet")):
        table = pq.ParquetFile(path).read()
        acted_at = np.asarray(table["acted_at"])
        in_window = (acted_at >= to_ms(start)) & (acted_at < to_ms(end))
        pin_id = np.asarray(table["pin_id"]).copy()
        request_id = table["request_id"].to_pylist()
        for row in np.flatnonzero(in_window):
            if request_id[row] is not None:
                pin_id[row] = rng.choice(candidates[request_id[row]])
                num_moved += 1
        column = table.schema.get_field_index("pin_id")
        spoilt = table.set_column(column, table.schema.field(column), pa.array(pin_id))
        pq.write_table(spoilt, path)
    return num_moved
