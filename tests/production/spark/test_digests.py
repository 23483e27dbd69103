"""What executors build has the bytes of what one machine builds, whatever the log is like.

A real standalone master and two worker processes.
"""

import uuid
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
from pipelines.sources.world.adapter import WorldAdapter
from support import random_log
from support.faulty_proxy import FaultyProxy
from support.runs import PLANTED_AS_OF, make_run
from support.s3_server import BUCKET, use_s3
from support.skewed_log import shares, write_skewed_log
from support.small_world import END, SMALL
from support.worlds import write_planted_world

pytestmark = [pytest.mark.production, pytest.mark.services, pytest.mark.slow]


def with_shards(config: RunConfig, num_shards: int) -> RunConfig:
    changed = config.snapshot.model_copy(update={"num_shards": num_shards})
    return config.model_copy(update={"snapshot": changed})


def build(folder: Path, place: str, config: RunConfig, as_of: datetime) -> Snapshot:
    return write_snapshot(
        make_run(folder, config, as_of, workspace_uri=storage.to_uri(folder / place))
    )


def assert_same(local: Snapshot, spark: Snapshot) -> None:
    """Check all that a manifest says, and the bytes that lie beside it."""
    assert spark.digest == local.digest
    assert spark.model_copy(update={"uri": local.uri}) == local
    verify_files(spark, storage.local_path(spark.uri))


@pytest.mark.parametrize("kind", ["planted", "skewed", "world", "own function", "completejourney"])
def test_the_digest_is_that_of_one_machine(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    log = tmp_path / "event_log"
    config, as_of = with_shards(smoke(), 5), PLANTED_AS_OF
    if kind == "planted":
        write_planted_world(log, num_days=67)
    elif kind == "skewed":
        write_skewed_log(log)
        assert all(user > 0.09 and pin > 0.29 for user, pin in shares(log).values()), shares(log)
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
    assert_same(local, spark)
    left = [path.name for path in (tmp_path / "spark" / "snapshots").iterdir() if path.is_dir()]
    assert left == [spark.digest[:16]]


def test_a_shard_without_users_is_there_and_empty(tmp_path: Path, by_spark: None) -> None:
    write_planted_world(tmp_path / "event_log", num_users=12)
    made = build(tmp_path, "spark", with_shards(smoke(), 40), PLANTED_AS_OF)
    assert len(made.shards) == 40
    assert min(shard.num_requests for shard in made.shards) == 0
    verify_files(made, storage.local_path(made.uri))


@pytest.fixture
def in_bucket(
    tmp_path: Path, s3_url: str, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> str:
    """A folder of an S3 server with a planted log; the driver goes to it by another way."""
    use_s3(s3_url, monkeypatch)
    proxy.mend()
    write_planted_world(tmp_path / "event_log", num_days=67)
    bucket = f"s3://{BUCKET}/{uuid.uuid4().hex}"
    storage.publish_folder(tmp_path / "event_log", f"{bucket}/event_log")
    return bucket


def test_log_and_workspace_in_an_object_store(
    tmp_path: Path, in_bucket: str, request: pytest.FixtureRequest
) -> None:
    config = with_shards(smoke(), 3)
    local = build(tmp_path, "local", config, PLANTED_AS_OF)
    request.getfixturevalue("by_spark")
    places = {"event_log_uri": f"{in_bucket}/event_log", "workspace_uri": f"{in_bucket}/workspace"}
    run = make_run(tmp_path, config, **places)
    spark = write_snapshot(run)
    assert spark.model_copy(update={"uri": local.uri}) == local
    with storage.local_copy(spark.uri) as folder:
        verify_files(spark, folder)
    assert [
        name
        for name in storage.list_names(f"{in_bucket}/workspace/snapshots")
        if "lease" not in name
    ] == [spark.digest[:16]]
    assert write_snapshot(run) == spark
