"""An object store that fails while executors read and write ends in the right bytes, or in none."""

import itertools
import uuid
from pathlib import Path

import pytest

from pipelines import storage
from pipelines.contracts.artifacts import ResolvedRun
from pipelines.contracts.errors import TransientStorageError
from pipelines.recipes import smoke
from pipelines.snapshot.build import write_snapshot
from support.faulty_proxy import FaultyProxy
from support.runs import make_run
from support.s3_server import BUCKET, use_s3
from support.worlds import write_planted_world

pytestmark = [pytest.mark.production, pytest.mark.services, pytest.mark.slow]
FAULTS = ("request lost", "500", "reset", "answer lost")


@pytest.fixture
def run(
    tmp_path: Path, s3_url: str, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> ResolvedRun:
    """A run in a bucket. The executors' requests go by the proxy, the driver's do not."""
    use_s3(s3_url, monkeypatch)
    proxy.mend()
    proxy.met.clear()
    write_planted_world(tmp_path / "event_log", num_days=67)
    bucket = f"s3://{BUCKET}/{uuid.uuid4().hex}"
    storage.publish_folder(tmp_path / "event_log", f"{bucket}/event_log")
    places = {"event_log_uri": f"{bucket}/event_log", "workspace_uri": f"{bucket}/work"}
    return make_run(tmp_path, smoke(), **places)


def names_in(run: ResolvedRun) -> list[str]:
    """Return what lies among the snapshots, but for leases."""
    found = storage.list_names(storage.join(run.workspace_uri, "snapshots"))
    return [name for name in found if not name.endswith(".lease")]


def test_requests_that_are_spoiled_now_and_then_change_nothing(
    tmp_path: Path, run: ResolvedRun, proxy: FaultyProxy, request: pytest.FixtureRequest
) -> None:
    local = write_snapshot(make_run(tmp_path, smoke()))
    request.getfixturevalue("by_spark")
    counted, in_turn = itertools.count(1), itertools.cycle(FAULTS)
    proxy.choose = lambda *_: "" if next(counted) % 7 else next(in_turn)
    assert write_snapshot(run).digest == local.digest
    assert len(proxy.met) > 10
    assert names_in(run) == [local.digest[:16]]


def test_a_store_that_is_gone_midway_publishes_nothing_and_may_be_tried_again(
    run: ResolvedRun, proxy: FaultyProxy, by_spark: None
) -> None:
    """It is gone when executors begin to write, for longer than all attempts of Spark take."""
    proxy.choose = lambda method, path: "reset" if method == "PUT" or proxy.met else ""
    with pytest.raises(TransientStorageError) as caught:
        write_snapshot(run)
    assert ".scratch-" in str(caught.value)
    assert len(proxy.met) > 10
    assert names_in(run) == []
    proxy.mend()
    made = write_snapshot(run)
    assert names_in(run) == [made.digest[:16]]
