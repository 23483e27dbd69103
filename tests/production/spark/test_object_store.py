"""Executors that read and write an object store, sound and failing: the right bytes, or none."""

import itertools
from pathlib import Path

import pytest

from pipelines import storage
from pipelines.contracts.artifacts import ResolvedRun
from pipelines.contracts.errors import TransientStorageError
from pipelines.contracts.snapshot_files import verify_files
from pipelines.snapshot.build import write_snapshot
from support.faulty_proxy import FaultyProxy
from support.runs import make_run

pytestmark = [pytest.mark.production, pytest.mark.services, pytest.mark.slow]
FAULTS = ("request lost", "500", "reset", "answer lost")


def names_in(run: ResolvedRun) -> list[str]:
    """Return what lies among the snapshots."""
    return storage.list_names(storage.join(run.workspace_uri, "snapshots"))


@pytest.mark.parametrize("is_faulty", [False, True])
def test_a_snapshot_in_a_bucket_is_that_of_one_machine(
    tmp_path: Path,
    in_bucket: ResolvedRun,
    proxy: FaultyProxy,
    request: pytest.FixtureRequest,
    is_faulty: bool,
) -> None:
    """Also where every seventh request of the executors is spoiled."""
    local = write_snapshot(make_run(tmp_path))
    request.getfixturevalue("by_spark")
    counted, in_turn = itertools.count(1), itertools.cycle(FAULTS)
    if is_faulty:
        proxy.choose = lambda *_: "" if next(counted) % 7 else next(in_turn)
    spark = write_snapshot(in_bucket)
    assert (len(proxy.met) > 10) == is_faulty
    proxy.mend()
    assert spark.model_copy(update={"uri": local.uri}) == local
    with storage.local_copy(spark.uri) as folder:
        verify_files(spark, folder)
    assert names_in(in_bucket) == [local.digest[:16]]
    assert write_snapshot(in_bucket) == spark


def test_a_store_that_is_gone_midway_publishes_nothing_and_may_be_tried_again(
    in_bucket: ResolvedRun, proxy: FaultyProxy, by_spark: None
) -> None:
    """It is gone when executors begin to write, for longer than all attempts of Spark take."""
    proxy.choose = lambda method, path: "reset" if method == "PUT" or proxy.met else ""
    with pytest.raises(TransientStorageError) as caught:
        write_snapshot(in_bucket)
    assert ".scratch-" in str(caught.value)
    assert len(proxy.met) > 10
    assert names_in(in_bucket) == []
    proxy.mend()
    made = write_snapshot(in_bucket)
    assert names_in(in_bucket) == [made.digest[:16]]
