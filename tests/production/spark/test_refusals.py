"""What one machine refuses, a cluster refuses with the same words, and publishes nothing."""

import contextlib
import itertools
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import storage
from pipelines.contracts.config import NumericFeature, RunConfig
from pipelines.contracts.errors import HomefeedError
from pipelines.snapshot.build import write_snapshot
from pipelines.snapshot.plan import shard_of
from pipelines.snapshot.spark import cluster as driver
from pipelines.snapshot.spark import placing
from support import random_log, tiny_log
from support.runs import make_run
from support.tiny_log import TINY_AS_OF, acted, january, shown, tiny_config, write_tiny_log

NUM_SHARDS = 4
pytestmark = [pytest.mark.production, pytest.mark.services, pytest.mark.slow]


def damaged_in_two_tables(log: Path) -> None:
    """Of several parts of the first pass, that of the first one counts."""
    for table in ("actions", "impressions"):
        path = sorted(log.glob(f"{table}/**/*.parquet"))[-1]
        path.write_bytes(path.read_bytes()[:-40])


def acted_before_its_request(log: Path) -> None:
    """An action in each of several requests, whose users are in several shards."""
    users = range(5, 10)
    more = [shown(f"E{user_id}", user_id, "18 12:00", 10, 20) for user_id in users]
    early = [acted(n, 10, "repin", "18 11:00", "18 11:00", f"E{n}") for n in users]
    assert len(set(shard_of(np.array(users), NUM_SHARDS).tolist())) > 1
    impressions = [*tiny_log.tiny_impressions(), *itertools.chain(*more)]
    write_tiny_log(log, impressions, [*tiny_log.tiny_actions(), *early])


def of_another_width(log: Path) -> None:
    """The driver alone sees that of all files."""
    wide = tiny_log.users_of([(2, january("11 00:00"))])
    column = pa.FixedSizeListArray.from_arrays(pa.array([0.5] * 8, pa.float32()), 8)
    wide = wide.set_column(wide.schema.get_field_index("embedding"), "embedding", column)
    pq.write_table(wide, log / "users" / "part-1.parquet")


def refused(
    folder: Path, place: str, config: RunConfig, as_of: datetime = TINY_AS_OF
) -> tuple[type, str]:
    """Return the error of a build, and check that nothing but a lock is where it publishes."""
    run = make_run(folder, config, as_of, workspace_uri=storage.to_uri(folder / place))
    with pytest.raises(HomefeedError) as caught:
        write_snapshot(run)
    names = storage.list_names(storage.join(run.workspace_uri, "snapshots"))
    assert [name for name in names if not name.endswith(".lock")] == []
    return type(caught.value), str(caught.value)


@pytest.mark.parametrize(
    "fault", [damaged_in_two_tables, acted_before_its_request, of_another_width, None]
)
def test_what_is_refused_is_refused_with_the_same_words(
    fault: Callable[[Path], None] | None, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Without a fault it is an own function that says nothing of some requests, and may not."""
    config, as_of = tiny_config(num_shards=NUM_SHARDS), TINY_AS_OF
    if fault is None:
        random_log.write_random_log(tmp_path / "event_log")
        own = NumericFeature(name="support.own_on_executors:num_known_actions")
        config, as_of = random_log.config_of(own), random_log.AS_OF
    else:
        write_tiny_log(tmp_path / "event_log")
        fault(tmp_path / "event_log")
    local = refused(tmp_path, "local", config, as_of)
    request.getfixturevalue("by_spark")
    assert refused(tmp_path, "spark", config, as_of) == local


def test_an_executor_with_other_code_is_refused(
    tmp_path: Path, by_spark: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny_log(tmp_path / "event_log")
    place = "pipelines.snapshot.spark.executor.project_digest"
    monkeypatch.setattr(place, lambda: "another version")
    _, message = refused(tmp_path, "spark", tiny_config(num_shards=2))
    assert "other code of this project than the driver" in message
    assert "the driver's is another vers" in message


def test_executors_that_see_another_disk_are_refused(
    tmp_path: Path, by_spark: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver's scratch folder is elsewhere for them, as on machines that share no disk."""
    write_tiny_log(tmp_path / "event_log")
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "out").mkdir(parents=True)

    class Elsewhere(placing.SharedFolder):
        """What an executor is told leads to another folder of the same machine."""

        def __reduce__(self) -> tuple:
            return placing.SharedFolder, (elsewhere,)

    def given(_: str, scratch: Path) -> contextlib.AbstractContextManager:
        return contextlib.nullcontext(Elsewhere(scratch))

    monkeypatch.setattr(driver, "place_for_shards", given)
    _, message = refused(tmp_path, "spark", tiny_config(num_shards=2))
    assert "written by an executor, is not in" in message and "HOMEFEED_WORKSPACE" in message
