"""Last step of the kernel: a shard's Arrow tables, and their files, the same bytes each time.

Not for reading: `pipelines.contracts.snapshot_files`.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa

from pipelines.contracts.artifacts import ShardStats
from pipelines.contracts.config import FeatureConfig
from pipelines.contracts.errors import ConfigurationError
from pipelines.contracts.schemas import (
    SHARD_FILES,
    SPLIT_HOLDOUT,
    SPLIT_TRAINING,
    label_column,
    numeric_column,
    snapshot_schema,
)
from pipelines.snapshot.plan import SnapshotPlan, WindowCounts
from pipelines.snapshot.shard import (
    Counts,
    Labels,
    OrderedRows,
    Pointers,
    ShardSummary,
    ShardTables,
    UserRows,
)


def make_tables(
    ordered: OrderedRows,
    pointers: Pointers,
    users: UserRows,
    labels: Labels,
    counts: Counts,
    plan: SnapshotPlan,
) -> ShardTables:
    """Return a shard's tables from what the steps before made."""
    requests, timeline, features = ordered.requests, pointers.timeline, plan.features
    is_holdout = requests.impressed_at >= plan.holdout.start_ms
    timeline_columns = {
        "pin_row": pointers.timeline_pin_row,
        "action_type_id": timeline.type_id,
        "acted_at": timeline.acted_at,
        "known_at": timeline.known_at,
    }
    request_columns = vars(requests) | {  # whose fields are named like their columns
        "split": np.where(is_holdout, SPLIT_HOLDOUT, SPLIT_TRAINING),
        "is_core": counts.is_core,
        "timeline_start": pointers.timeline_start,
        "timeline_end": pointers.timeline_end,
        "user_row": users.user_row,
    }
    rows = ordered.examples.rows
    example_columns = {name: rows[name] for name in rows.column_names}
    example_columns["pin_row"] = pointers.example_pin_row
    example_columns |= {numeric_column(name): found for name, found in counts.numbers.items()}
    example_columns |= {label_column(name): found for name, found in labels.items()}
    return ShardTables(
        timeline=pa.table(timeline_columns, schema=snapshot_schema("timeline", features)),
        requests=pa.table(request_columns, schema=snapshot_schema("requests", features)),
        examples=pa.table(example_columns, schema=snapshot_schema("examples", features)),
        users=users.table,
        num_duplicate_impressions=ordered.num_duplicate_impressions,
    )


def make_empty_tables(features: FeatureConfig, embedding_dim: int) -> ShardTables:
    """Return the tables of a shard without impressions."""
    empty = {
        name: snapshot_schema(name, features, embedding_dim=embedding_dim).empty_table()
        for name in SHARD_FILES
    }
    return ShardTables(**empty, num_duplicate_impressions=0)


def write_shard(folder: Path, name: str, built: ShardTables, plan: SnapshotPlan) -> ShardSummary:
    """Write a shard's files into a folder that is there, and return what was counted.

    Raises:
        ConfigurationError: a table is too large for one batch.
    """
    for each in SHARD_FILES:
        write_arrow(folder / f"{each}.arrow", getattr(built, each))
    stats = ShardStats(
        name=name,
        num_users=len(np.unique(np.asarray(built.requests["user_id"]))),
        num_actions=len(built.timeline),
        num_requests=len(built.requests),
        num_examples=len(built.examples),
    )
    num_positives = _count_positives(built, plan.features.main_head.name)
    duplicates = built.num_duplicate_impressions
    return ShardSummary(stats, duplicates, num_positives, built.event_counts)


def _count_positives(built: ShardTables, head_name: str) -> WindowCounts:
    label = np.asarray(built.examples[label_column(head_name)])
    splits, num_examples = (np.asarray(built.requests[n]) for n in ("split", "num_examples"))
    split = np.repeat(splits, num_examples)
    return WindowCounts(
        training=int(label[split == SPLIT_TRAINING].sum()),
        holdout=int(label[split == SPLIT_HOLDOUT].sum()),
    )


def write_arrow(path: Path, table: pa.Table) -> None:
    """Write an Arrow IPC file: uncompressed, one record batch, the same bytes for equal tables.

    Raises:
        ConfigurationError: the table is too large for one batch.
    """
    batches = table.combine_chunks().to_batches()
    if len(batches) > 1:
        raise ConfigurationError(
            f"{path.name} does not fit one record batch (more than 2 GiB of text in a column); "
            f"expected less; raise snapshot.num_shards in the recipe"
        )
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_batch(
            batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)
        )
