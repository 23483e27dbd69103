"""A deletion on an object store, which has no rename: the manifest goes first."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines import deletion, storage
from pipelines.contracts.artifacts import STAGES
from pipelines.contracts.run_layout import manifest_uri, stage_lease_uri
from pipelines.places import lease as store_lease
from pipelines.registry.history import History
from pipelines.registry.reconcile import State
from pipelines.retention import collect, inventory
from pipelines.retention.collect import Place, delete
from pipelines.retention.plan import Record, make_plan
from pipelines.settings import Settings
from support.retention_world import save_snapshot
from support.runs import make_run, save_artifact, save_run

SETTINGS = Settings(registered_model="test_ranker")


@pytest.fixture
def place(s3_uri: str, monkeypatch: pytest.MonkeyPatch) -> Place:
    state = State("test_ranker", s3_uri, History((), (), (), 1, "", False), None, "")
    monkeypatch.setattr(collect, "read_state", lambda *where: state)
    found = Record(state, frozenset(), {}, ())
    return Place(None, s3_uri, "test_ranker", found)  # type: ignore[arg-type]


def save_cycle(tmp_path: Any, place: Place, name: str, digit: str) -> str:
    run = make_run(tmp_path, workspace_uri=place.workspace_uri, run_id=name)
    save_run(run)
    save_snapshot(run, digit * 16)
    save_artifact(run, "alert", run)
    storage.write_bytes(f"{run.run_uri}/check_snapshot/output-1/page.html", b"x")
    return run.run_uri


def delete_in(place: Place, days: float) -> dict[str, str]:
    now = datetime.now(UTC) + timedelta(days=days)
    found = inventory.take_inventory(place.workspace_uri, place.dead)
    plan = make_plan(found, place.record, SETTINGS, now)
    return {f"{item.kind} {item.held.name}": why for item, why in delete(place, plan)}


def test_old_runs_snapshots_and_alerts_go_and_only_leases_stay(tmp_path: Any, place: Place) -> None:
    uri = save_cycle(tmp_path, place, "cycle-1", "1")
    for ending in ("json", "txt"):
        storage.write_bytes(f"{place.workspace_uri}/outbox/a.regression.0123abcd.{ending}", b"{}")
    storage.write_bytes(f"{place.workspace_uri}/history/test_ranker/x.json", b"{}")
    assert delete_in(place, 10) == {}
    told = delete_in(place, 400)
    assert told == {
        "run cycle-1": "",
        f"snapshot {'1' * 16}": "",
        "alert a.regression.0123abcd": "",
    }
    assert inventory.find_runs(place.workspace_uri, {}) == ()
    assert storage.list_names(f"{uri}/alert") == ["stage.lease"]
    assert not storage.exists(f"{place.workspace_uri}/snapshots/{'1' * 16}/manifest.json")
    assert storage.exists(f"{place.workspace_uri}/history/test_ranker/x.json")
    assert delete_in(place, 400) == {}


def leave_dead_holder(run_uri: str, stage: str) -> None:
    """Write the lease that a stage whose machine was lost has left."""
    state = store_lease.LeaseState(number=1, holder="x", token="x", ttl_s=60, purpose="a stage")
    storage.write_model(f"{stage_lease_uri(run_uri, stage)}.lease", state)


def test_dead_holders_are_waited_for_together_and_only_once(
    tmp_path: Any, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runs were left by lost machines, and two snapshots are named by no run."""
    for name in ("1", "2"):
        run = make_run(
            tmp_path, workspace_uri=place.workspace_uri, run_id=name, registered_model="another"
        )
        save_run(run)
        leave_dead_holder(run.run_uri, "train_challenger")
        storage.write_bytes(f"{place.workspace_uri}/snapshots/{name * 16}/manifest.json", b"{}")
    monkeypatch.setattr(collect, "read_record", lambda *where: place.record)
    monkeypatch.setattr(collect.models, "find_versions", lambda *where: ())
    pauses: list[float] = []
    clock = SimpleNamespace(sleep=pauses.append, clock_gettime=lambda _: sum(pauses))
    monkeypatch.setattr(store_lease, "time", clock)
    settings = SETTINGS.model_copy(update={"workspace": place.workspace_uri})
    now = datetime.now(UTC) + timedelta(days=400)
    found, plan = collect.plan_deletion(place.client, settings, now)
    assert sum(pauses) == 23.0, "one and a half of the 15 s between two signs of life, in seconds"
    told = {item.held.name: why for item, why in delete(found, plan)}
    assert told == {"1" * 16: "", "2" * 16: ""}
    assert sum(pauses) == 23.0


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
    uri = save_cycle(tmp_path, place, "cycle-1", "1")
    snapshot_uri = f"{place.workspace_uri}/snapshots/{'1' * 16}"
    kill_after(place, 1)
    assert not storage.exists(manifest_uri(uri, "resolve_run"))
    assert storage.exists(manifest_uri(uri, "alert"))
    # The run's eight manifests, its page, and the snapshot's manifest.
    kill_after(place, 10)
    assert inventory.find_runs(place.workspace_uri, {}) == ()
    assert storage.list_names(snapshot_uri) == ["shard-00000"]
    assert delete_in(place, 400) == {f"snapshot {'1' * 16}": ""}
    assert inventory.take_inventory(place.workspace_uri, place.dead).snapshots == ()
    assert set(storage.list_names(uri)) <= set(STAGES)
