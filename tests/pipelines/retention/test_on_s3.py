"""A deletion on an object store, which has no rename: the manifest goes first."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pipelines import deletion, storage
from pipelines.contracts.run_layout import manifest_uri
from pipelines.registry.history import History
from pipelines.registry.reconcile import State
from pipelines.retention import collect, inventory
from pipelines.retention.collect import Place, delete
from pipelines.retention.plan import Record, make_plan
from pipelines.settings import Settings
from support.retention_world import label, save_snapshot
from support.runs import make_run, save_artifact, save_run

SETTINGS = Settings(registered_model="test_ranker")


@pytest.fixture
def place(s3_uri: str, monkeypatch: pytest.MonkeyPatch) -> Place:
    state = State(History(s3_uri, "test_ranker"), None, "")
    monkeypatch.setattr(collect, "read_state", lambda *where: state)
    found = Record(state, frozenset(), {}, ())
    return Place(None, s3_uri, "test_ranker", found)  # type: ignore[arg-type]


def save_cycle(tmp_path: Any, place: Place) -> str:
    run = save_run(make_run(tmp_path, workspace_uri=place.workspace_uri, run_id="cycle-1"))
    save_snapshot(run, "1" * 16)
    save_artifact(run, "alert", run)
    storage.write_bytes(f"{run.run_uri}/check_snapshot/output-1/page.html", b"x")
    return run.run_uri


def delete_in(place: Place, days: float) -> dict[str, str]:
    now = datetime.now(UTC) + timedelta(days=days)
    found = inventory.take_inventory(place.workspace_uri)
    plan = make_plan(found, place.record, SETTINGS, now)
    return {label(item): why for item, why in delete(place, plan)}


class Killed(BaseException):
    pass


def kill_after(place: Place, num_removed: int) -> None:
    """Delete, and end as a kill would once so many things have been removed."""
    count, remove = iter(range(100)), deletion.remove

    def remove_or_die(each: str) -> None:
        if next(count) == num_removed:
            raise Killed
        remove(each)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deletion, "remove", remove_or_die)
        with pytest.raises(Killed):
            delete_in(place, 400)


def test_what_a_kill_has_left_is_no_run_and_no_snapshot_and_the_next_deletion_ends_it(
    tmp_path: Any, place: Place
) -> None:
    uri = save_cycle(tmp_path, place)
    for ending in ("json", "txt"):
        storage.write_bytes(f"{place.workspace_uri}/outbox/a.regression.0123abcd.{ending}", b"{}")
    record_uri = f"{place.workspace_uri}/history/test_ranker/x.json"
    storage.write_bytes(record_uri, b"{}")
    assert delete_in(place, 10) == {}
    snapshot_uri = f"{place.workspace_uri}/snapshots/{'1' * 16}"
    kill_after(place, 1)
    assert not storage.exists(manifest_uri(uri, "resolve_run"))
    assert storage.exists(manifest_uri(uri, "alert"))
    # What is left of the run, and the snapshot's manifest.
    kill_after(place, 5)
    assert inventory.find_runs(place.workspace_uri) == []
    assert storage.list_names(snapshot_uri) == ["shard-00000"]
    told = delete_in(place, 400)
    assert told == {f"snapshot {'1' * 16}": "", "alert a.regression.0123abcd": ""}
    assert inventory.take_inventory(place.workspace_uri) == []
    assert storage.list_names(uri) == [] and storage.exists(record_uri)
