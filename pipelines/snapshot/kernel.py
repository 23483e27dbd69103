"""The kernel builds one shard's tables from its users' rows: tables in, tables out.

A shard needs nothing from another one except the pins and what was counted about each. The kernel
opens no file and knows no clock, so any engine that can group rows by `shard_of` may run it. The
rows may come in any order: the first step makes the one order that all later steps keep.

The steps are called once each, in the order below, and pass on the values of
`pipelines.snapshot.shard`. Tested in tests/pipelines/snapshot/test_purity.py.
"""

from dataclasses import replace

from pipelines.snapshot.features.count import count_features
from pipelines.snapshot.features.inputs import FeatureInputs
from pipelines.snapshot.labels import count_fits, find_unnamed, label_examples
from pipelines.snapshot.order import order_rows
from pipelines.snapshot.plan import SnapshotPlan
from pipelines.snapshot.pointers import point
from pipelines.snapshot.shard import PinIndex, ShardRows, ShardTables
from pipelines.snapshot.tables import make_empty_tables, make_tables
from pipelines.snapshot.users import pick_user_rows


def build_shard(rows: ShardRows, pins: PinIndex, plan: SnapshotPlan) -> ShardTables:
    """Build one shard.

    Args:
        rows: the shard's impressions of both windows, its actions and its users' rows.
        pins: pins and popularity of the whole snapshot.
        plan: windows and features.

    Returns:
        Tables of the schemas that `snapshot_schema` gives, each in a total order, so that equal
        rows in give equal bytes out.

    Raises:
        DataContractError: a request belongs to two users, an action precedes its own request, or
            a user has two rows of the same as_of.
        ConfigurationError: one of the recipe's own features is refused.
    """
    if rows.impressions is None or len(rows.impressions) == 0:
        return make_empty_tables(plan.features, pins.embedding_dim)
    ordered = order_rows(rows.impressions, rows.actions)
    pointers = point(ordered, pins, plan.history_start_ms)
    users = pick_user_rows(rows.users, ordered.requests, plan.features, pins.embedding_dim)
    unnamed = find_unnamed(ordered, pointers.pairs, plan)
    labels = label_examples(ordered, pointers.pairs, unnamed, plan)
    seen = FeatureInputs(ordered, pointers, users, rows.users, pins, plan)
    counts = count_features(seen)
    made = make_tables(ordered, pointers, users, labels, counts, plan)
    return replace(made, event_counts=count_fits(ordered, unnamed, plan))
