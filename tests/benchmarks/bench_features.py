"""What ten numeric features cost in the kernel: microseconds of one core per example.

The kernel's steps before them are done once, on one shard with all users of a small world. Then the
ten are computed several times, each time from rows on which nothing has been searched yet. The time
is the processor's, in one thread, and what the same call takes without any feature is taken off.
"""

import sys
import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from record import Row, row
from sample import HOME

from pipelines import storage
from pipelines.contracts.config import CategoricalFeature, NumericFeature
from pipelines.event_log.log_files import open_event_log
from pipelines.recipes import world
from pipelines.snapshot.features.count import compute_numbers
from pipelines.snapshot.features.inputs import FeatureInputs
from pipelines.snapshot.kernel import order_rows, pick_user_rows, point
from pipelines.snapshot.pins import count_pins
from pipelines.snapshot.plan import plan_of
from pipelines.snapshot.spill import HeldRows, deal_out, make_tasks, merge_summaries
from pipelines.sources.publish import ingest
from pipelines.sources.world.parameters import WorldParameters
from support.world_adapter import WorldAdapter

PARAMETERS = WorldParameters(num_users=500, seed=9)
AS_OF = datetime(2024, 3, 1, tzinfo=UTC)  # midnight after the last of its days
REPETITIONS = 7
TEN = (
    NumericFeature(name="pin_popularity_slope"),
    NumericFeature(name="pin_age"),
    NumericFeature(name="past_engagements"),
    NumericFeature(name="since_last_touch_of_pin"),
    NumericFeature(name="since_last_touch_of_category", category="embedding_version"),
    NumericFeature(name="user_actions:click"),
    NumericFeature(name="user_activity"),
    NumericFeature(name="similarity_best"),
    NumericFeature(name="similarity_decayed"),
    NumericFeature(name="session_position"),
)


def measure() -> list[Row]:
    """Return the cost of the ten features per example, the median of some repetitions."""
    with tempfile.TemporaryDirectory(prefix="homefeed-bench-") as folder:
        seen = make_inputs(Path(folder))
        num_examples = len(seen.request)
        _cpu_us(seen, TEN)  # fills the caches
        costs = [
            (_cpu_us(seen, TEN) - _cpu_us(seen, ())) / num_examples for _ in range(REPETITIONS)
        ]
    return [
        row(
            "kernel_ten_features_us",
            float(np.median(costs)),
            "us of one core per example (goal: <= 3)",
            spread=f"{min(costs):.2f} to {max(costs):.2f} over {REPETITIONS} repetitions",
            rows=num_examples,
            seed=str(PARAMETERS.seed),
            note="Ten numeric features, two similarities to the newest 50 actions among them.",
        )
    ]


def make_inputs(folder: Path) -> FeatureInputs:
    """Return one shard of the world after the steps that come before the features."""
    log_uri = storage.to_uri(HOME / f"world-features-{PARAMETERS.num_users}-{PARAMETERS.seed}")
    ingest(WorldAdapter(PARAMETERS), log_uri)
    base = world()
    version = CategoricalFeature(name="embedding_version", table="pins", values=("world-1",))
    features = base.features.model_copy(update={"categorical": (version,), "numeric": TEN})
    snapshot = base.snapshot.model_copy(update={"num_shards": 1})
    config = base.model_copy(update={"features": features, "snapshot": snapshot})
    plan, log = plan_of(config, AS_OF), open_event_log(log_uri)
    out, held = folder / "out", HeldRows(folder / "spilled", sys.maxsize)
    out.mkdir()
    found = merge_summaries([deal_out(task, held.keep) for task in make_tasks(log, plan)])
    pins = count_pins(log, found, plan, out)
    rows = held.take(0)
    ordered = order_rows(rows.impressions, rows.actions)
    return FeatureInputs(
        ordered=ordered,
        pointers=point(ordered, pins, plan.history_start_ms),
        users=pick_user_rows(rows.users, ordered.requests, plan.features, pins.embedding_dim),
        spilled_users=rows.users,
        pins=pins,
        plan=plan,
    )


def _cpu_us(seen: FeatureInputs, numeric: tuple[NumericFeature, ...]) -> float:
    """Return the processor's time in microseconds, from inputs without any search kept."""
    fresh = replace(seen)
    started = time.thread_time()
    compute_numbers(fresh, numeric)
    return (time.thread_time() - started) * 1e6
