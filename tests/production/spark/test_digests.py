"""What executors build has the bytes of what one machine builds, whatever the log is like.

A real standalone master and two worker processes.
"""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipelines import storage
from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.config import NumericFeature, RunConfig
from pipelines.contracts.snapshot_files import verify_files
from pipelines.recipes import completejourney, smoke, world
from pipelines.snapshot.build import write_snapshot
from pipelines.sources.completejourney.adapter import CompleteJourneyAdapter
from pipelines.sources.publish import ingest
from support import random_log
from support.runs import PLANTED_AS_OF, make_run
from support.small_world import END, SMALL
from support.world_adapter import WorldAdapter
from support.worlds import write_planted_world

pytestmark = [pytest.mark.production, pytest.mark.services, pytest.mark.slow]


def with_shards(config: RunConfig, num_shards: int) -> RunConfig:
    changed = config.snapshot.model_copy(update={"num_shards": num_shards})
    return config.model_copy(update={"snapshot": changed})


def build(folder: Path, place: str, config: RunConfig, as_of: datetime) -> Snapshot:
    return write_snapshot(
        make_run(folder, config, as_of, workspace_uri=storage.to_uri(folder / place))
    )


@pytest.mark.parametrize(
    "kind", ["planted", "few users", "world", "own function", "completejourney"]
)
def test_the_digest_is_that_of_one_machine(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    log = tmp_path / "event_log"
    config, as_of = with_shards(smoke(), 5), PLANTED_AS_OF
    if kind == "planted":
        write_planted_world(log, num_days=67)
    elif kind == "few users":  # each has a quarter of all rows, and most shards are empty
        write_planted_world(log, num_users=4, requests_per_user_day=4)
    elif kind == "own function":
        random_log.write_random_log(log)
        own = NumericFeature(name="support.own_on_executors:num_known_actions", may_be_missing=True)
        config, as_of = random_log.config_of(own), random_log.AS_OF
    elif kind == "world":
        ingest(WorldAdapter(SMALL), str(log))
        config, as_of = with_shards(world(), 3), END
    else:
        ingest(CompleteJourneyAdapter(), str(log))
        config, as_of = completejourney(), datetime(2017, 6, 12, tzinfo=UTC)
    local = build(tmp_path, "local", config, as_of)
    request.getfixturevalue("by_spark")
    spark = build(tmp_path, "spark", config, as_of)
    assert spark.model_copy(update={"uri": local.uri}) == local  # all that a manifest says
    assert kind != "few users" or min(shard.num_requests for shard in spark.shards) == 0
    verify_files(spark, storage.local_path(spark.uri))
    left = [path.name for path in (tmp_path / "spark" / "snapshots").iterdir() if path.is_dir()]
    assert left == [spark.digest[:16]]
