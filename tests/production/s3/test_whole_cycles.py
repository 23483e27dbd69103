"""Two whole cycles with everything in one bucket make what they make on a local disk.

Event log, workspace, runs, snapshots, outbox and history lie in the bucket of a real S3 server.
"""

import uuid
from collections.abc import Iterator

import pytest

from pipelines import storage
from pipelines.registry import history
from support import stage_acts
from support.deployments import Deployment, facts_of
from support.runs import PLANTED_AS_OF
from support.s3_server import BUCKET, environment, use_s3
from support.worlds import write_planted_world

pytestmark = [pytest.mark.production, pytest.mark.services, pytest.mark.slow]
CYCLES = (("first", stage_acts.FIRST_AS_OF), ("second", PLANTED_AS_OF))


@pytest.fixture(scope="module")
def both(
    tmp_path_factory: pytest.TempPathFactory, tracking_uri: str, s3_url: str
) -> Iterator[tuple[Deployment, Deployment]]:
    """A deployment on a local disk and one in a bucket, each with two cycles behind it."""
    folder = tmp_path_factory.mktemp("cycles")
    log = folder / "event_log"
    write_planted_world(log, num_users=240)
    bucket = f"s3://{BUCKET}/{uuid.uuid4().hex}"
    places = {
        "disk": (storage.to_uri(log), storage.to_uri(folder / "workspace"), {}),
        "store": (f"{bucket}/event_log", f"{bucket}/workspace", environment(s3_url)),
    }
    with pytest.MonkeyPatch.context() as patch:
        use_s3(s3_url, patch)
        storage.publish_folder(log, f"{bucket}/event_log")
        found = [
            Deployment(folder / name, event_log, workspace, tracking_uri, f"on_{name}", extra)
            for name, (event_log, workspace, extra) in places.items()
        ]
        for each in found:
            for trigger, as_of in CYCLES:
                each.run_cycle(trigger, as_of)
        yield found[0], found[1]


@pytest.mark.parametrize(("trigger", "as_of"), CYCLES)
def test_a_cycle_in_a_bucket_makes_what_it_makes_on_a_disk(
    both: tuple[Deployment, Deployment], trigger: str, as_of: object
) -> None:
    disk, store = (facts_of(each.run_uri(trigger, as_of)) for each in both)  # type: ignore[arg-type]
    for name, expected in disk.items():
        assert store[name] == expected, name
    assert disk["snapshot"] and disk["bundle"]


def test_history_and_files_in_a_bucket_are_as_on_a_disk_and_the_machine_keeps_checkpoints_alone(
    both: tuple[Deployment, Deployment],
) -> None:
    disk, store = (history.load(each.workspace, each.model) for each in both)
    assert store.damaged == () and store.pending is None
    told = [[(e.kind, e.model.version) for e in known.moves] for known in (disk, store)]
    assert told[0] == told[1] != []
    names = [sorted(storage.list_names(each.workspace)) for each in both]
    assert names[0] == names[1] and "days" in names[0]
    home = both[1].home
    left = [path for path in (home / "tmp").rglob("*") if path.is_file()]
    assert [path for path in left if "homefeed-work-" not in str(path)] == []
    assert not (home / "workspace").exists() and not (home / "event_log").exists()
