"""Alias and history held against each other, and mended, with a real MLflow server."""

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipelines import deletion, storage
from pipelines.contracts.artifacts import ModelRef, ResolvedRun
from pipelines.contracts.errors import (
    ConfigurationError,
    DataContractError,
    RecordDisagreesError,
    RunInProgressError,
    TrackingEntryMissingError,
)
from pipelines.preconditions.cycle import require_record
from pipelines.registry import by_hand, history, promotion, reconcile, registry, tracking
from pipelines.registry.by_hand import plan, repair
from pipelines.registry.history import HistoryEntry
from pipelines.registry.reconcile import State, look, require_agreement
from pipelines.settings import Settings
from support.registered import (
    NO_ANCHOR,
    NOW,
    challenger_of,
    judgement_of,
    promote_bundle,
    register_bundle,
)
from support.runs import make_run

pytestmark = pytest.mark.services
DAY = datetime(2017, 6, 12, tzinfo=UTC)
LATER = NOW + timedelta(days=9)


@pytest.fixture
def client(tracking_uri: str) -> MlflowClient:
    return tracking.connect(tracking_uri)


def cycle(folder: Path, tracking_uri: str, number: int, champion: ModelRef | None) -> ResolvedRun:
    return make_run(
        folder,
        as_of=DAY + timedelta(days=14 * number),
        tracking_uri=tracking_uri,
        registered_model=f"reconciled_{folder.name}",
        experiment="reconciled",
        champion=champion,
    )


@pytest.fixture
def runs(tmp_path: Path, client: MlflowClient) -> list[ResolvedRun]:
    """Two cycles, each of which promoted a model of a registered model of its own."""
    one = cycle(tmp_path, client.tracking_uri, 0, None)
    first = promote_bundle(client, one, tmp_path)
    two = cycle(tmp_path, client.tracking_uri, 1, first)
    promote_bundle(client, two, tmp_path)
    return [one, two]


def state_of(client: MlflowClient, run: ResolvedRun) -> State:
    return look(client, run.workspace_uri, run.registered_model)


def propose(client: MlflowClient, state: State, restores: bool) -> list[str]:
    return list(plan(client, state, restores).steps)


def mend(
    client: MlflowClient, state: State, reason: str, restores: bool, to_version: str | None = None
) -> HistoryEntry | None:
    return repair(client, state, plan(client, state, restores, to_version), LATER, reason)


def test_nothing_is_to_be_mended_where_they_agree(
    runs: list[ResolvedRun], client: MlflowClient
) -> None:
    state = state_of(client, runs[0])
    require_agreement(state)
    assert propose(client, state, False) == propose(client, state, True) == []
    assert mend(client, state, "for nothing", False) is None
    assert len(state_of(client, runs[0]).history.placed) == 2


@pytest.mark.parametrize("restores", [False, True])
def test_an_alias_that_was_moved_by_hand(
    runs: list[ResolvedRun], client: MlflowClient, restores: bool
) -> None:
    run = runs[1]
    client.set_registered_model_alias(run.registered_model, "champion", "1")
    state = state_of(client, run)
    with pytest.raises(RecordDisagreesError, match="v1 serves.* v2 does.*homefeed history repair"):
        require_agreement(state)
    [step] = propose(client, state, restores)
    assert ("point the alias at" in step, "record that" in step) == (restores, not restores)
    with pytest.raises(ConfigurationError, match="--reason is empty"):
        mend(client, state, " ", restores)
    entry = mend(client, state, "somebody tried something", restores)
    assert entry is not None and entry.kind == "outside"
    after = state_of(client, run)
    require_agreement(after)
    assert after.serves == after.recorded == ("2" if restores else "1")
    assert len(after.history.entries) == 3


def test_an_alias_that_was_deleted(runs: list[ResolvedRun], client: MlflowClient) -> None:
    run = runs[1]
    client.delete_registered_model_alias(run.registered_model, "champion")
    state = state_of(client, run)
    with pytest.raises(RecordDisagreesError, match="that no model serves"):
        require_agreement(state)
    with pytest.raises(ConfigurationError, match="--restore-alias"):
        mend(client, state, "it was deleted", False)
    mend(client, state, "it was deleted", True)
    require_agreement(state_of(client, run))
    assert state_of(client, run).serves == "2"


def test_a_damaged_entry_is_named_and_acknowledged_once(
    runs: list[ResolvedRun], client: MlflowClient
) -> None:
    run = runs[1]
    path = storage.local_path(state_of(client, run).history.placed[1].uri)
    path.write_text("{")
    state = state_of(client, run)
    require_agreement(state)  # The damage explains why the history does not know what serves.
    assert [path.name in step for step in propose(client, state, False)] == [False, True]
    mend(client, state, "the disk had failed", False)
    after = state_of(client, run)
    assert after.history.damaged == () and after.recorded == "2"
    assert propose(client, after, False) == []


def test_two_workspaces_do_not_move_one_registered_model(
    runs: list[ResolvedRun], client: MlflowClient, tmp_path: Path
) -> None:
    """The other one has no history, so it would find no champion to go back to."""
    two = runs[1]
    elsewhere = storage.to_uri(tmp_path / "elsewhere")
    run_uri = storage.join(elsewhere, "runs", "other")
    places = {"workspace_uri": elsewhere, "run_uri": run_uri, "run_id": "other"}
    run = runs[1].model_copy(update={**places, "champion": None})
    with pytest.raises(RecordDisagreesError, match=f"is kept by workspace {two.workspace_uri}"):
        promote_bundle(client, run, tmp_path)
    state = state_of(client, run)
    assert len(propose(client, state, False)) == 2
    mend(client, state, "the workspace was moved", False)
    require_agreement(state_of(client, run))
    with pytest.raises(RecordDisagreesError, match="is kept by workspace .*elsewhere"):
        require_agreement(state_of(client, two))


def test_a_champion_that_was_deleted_is_replaced_by_a_version_that_is_there(
    runs: list[ResolvedRun], client: MlflowClient
) -> None:
    run = runs[1]
    client.delete_model_version(run.registered_model, "2")
    state = state_of(client, run)
    with pytest.raises(TrackingEntryMissingError, match="--to-version N"):
        mend(client, state, "it was deleted", True)
    assert len(state_of(client, run).history.placed) == 2
    entry = mend(client, state, "it was deleted", False, "1")
    assert entry is not None and entry.model.version == "1"
    require_agreement(state_of(client, run))


def test_a_foreign_version_behind_the_alias_is_put_away(
    runs: list[ResolvedRun], client: MlflowClient
) -> None:
    run = runs[1]
    first = client.get_model_version(run.registered_model, "1")
    client.create_model_version(run.registered_model, first.source, run_id=first.run_id)
    client.set_registered_model_alias(run.registered_model, "champion", "3")
    state = state_of(client, run)
    with pytest.raises(RecordDisagreesError, match="v3 serves"):
        require_agreement(state)
    mend(client, state, "somebody tried something", True)
    assert state_of(client, run).serves == "2"
    require_agreement(state_of(client, run))


def test_a_registry_in_which_the_number_is_another_model_is_noticed(
    runs: list[ResolvedRun], client: MlflowClient
) -> None:
    run = runs[1]
    client.set_model_version_tag(run.registered_model, "2", "bundle_digest", "f" * 64)
    with pytest.raises(RecordDisagreesError, match="they belong to two registries"):
        require_agreement(state_of(client, run))


def test_a_rollback_after_a_repair_goes_to_what_has_served(
    runs: list[ResolvedRun], client: MlflowClient, tmp_path: Path
) -> None:
    """Not to what a hand had put behind the alias for an hour."""
    two = runs[1]
    third = register_bundle(client, two.model_copy(update={"run_id": "third"}), tmp_path)
    client.set_registered_model_alias(two.registered_model, "champion", third.version)
    mend(client, state_of(client, two), "somebody tried something", True)
    settings = Settings(
        workspace=two.workspace_uri,
        tracking_uri=two.tracking_uri,
        registered_model=two.registered_model,
    )
    assert by_hand.rollback(client, settings, None, LATER, "hides rose").model.version == "1"


def test_a_newest_entry_that_is_damaged_makes_no_rollback_a_success(
    runs: list[ResolvedRun], client: MlflowClient
) -> None:
    two = runs[1]
    settings = Settings(
        workspace=two.workspace_uri,
        tracking_uri=two.tracking_uri,
        registered_model=two.registered_model,
    )
    by_hand.rollback(client, settings, None, LATER, "hides rose")
    by_hand.rollback(client, settings, "2", LATER + timedelta(hours=1), "it was not it")
    newest = state_of(client, two).history.placed[-1]
    storage.local_path(newest.uri).write_text("{")
    entry = by_hand.rollback(client, settings, None, LATER + timedelta(hours=2), "hides rose")
    assert entry.model.version == "1" == state_of(client, two).serves


def test_a_move_that_ends_between_two_reads_is_no_disagreement(
    runs: list[ResolvedRun], client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = runs[1]
    settings = Settings(
        workspace=two.workspace_uri,
        tracking_uri=two.tracking_uri,
        registered_model=two.registered_model,
    )
    read, num_reads = history.load, itertools.count(1)

    def load(workspace_uri: str, name: str) -> history.History:
        """Let a rollback happen before the history is read; the alias was read already."""
        if next(num_reads) == 1:
            monkeypatch.setattr(history, "load", read)
            by_hand.rollback(client, settings, None, LATER, "hides rose")
        return read(workspace_uri, name)

    monkeypatch.setattr(history, "load", load)
    require_record(client, two.workspace_uri, two.registered_model)
    assert state_of(client, two).serves == "1"
    client.set_registered_model_alias(two.registered_model, "champion", "2")
    with pytest.raises(RecordDisagreesError, match="v2 serves"):
        require_record(client, two.workspace_uri, two.registered_model)


@pytest.mark.parametrize("comes_to_rest", [True, False])
def test_what_the_last_of_many_looks_finds_counts(
    runs: list[ResolvedRun],
    client: MlflowClient,
    monkeypatch: pytest.MonkeyPatch,
    comes_to_rest: bool,
) -> None:
    """At each look but perhaps the last the alias has been moved once more."""
    two = runs[1]
    rest = state_of(client, two)
    served = (rest.served.model_copy(update={"version": str(n)}) for n in itertools.count(70))
    looks = [replace(rest, served=next(served)) for _ in range(reconcile._MAX_LOOKS)]
    looks.append(rest if comes_to_rest else replace(rest, served=next(served)))
    monkeypatch.setattr(reconcile, "look", lambda *_: looks.pop(0))
    where = (client, two.workspace_uri, two.registered_model)
    if comes_to_rest:
        assert reconcile.look_between_moves(*where) == rest
    else:
        with pytest.raises(RunInProgressError, match="was moved between"):
            reconcile.look_between_moves(*where)
    assert looks == []


@pytest.mark.parametrize("is_deleted", [False, True])
def test_a_new_cycle_does_not_begin_where_the_newest_entry_is_damaged(
    runs: list[ResolvedRun], client: MlflowClient, tmp_path: Path, is_deleted: bool
) -> None:
    """Nothing else vouches for the alias: without one, this would be taken for a first cycle."""
    two = runs[1]
    newest = state_of(client, two).history.placed[-1]
    storage.local_path(newest.uri).write_text("{")
    champion = registry.read_champion(client, two.registered_model)
    if is_deleted:
        client.delete_registered_model_alias(two.registered_model, "champion")
        champion = None
    with pytest.raises(DataContractError, match="newest entry of the history is damaged"):
        require_record(client, two.workspace_uri, two.registered_model)
    begun = two.model_copy(
        update={
            "champion": champion,
            "as_of": two.as_of + timedelta(days=14),
            "run_id": "third",
            "run_uri": f"{two.run_uri}-third",
        }
    )
    with pytest.raises(DataContractError, match="newest entry of the history is damaged"):
        promote_bundle(client, begun, tmp_path)
    assert registry.read_champion(client, two.registered_model) == champion
    if champion is not None:
        mend(client, state_of(client, two), "the disk had failed", False)
        require_record(client, two.workspace_uri, two.registered_model)


@pytest.mark.parametrize("digest", ["", "f" * 64])
def test_a_champion_whose_serving_code_has_another_digest_by_now_is_noticed(
    client: MlflowClient, tmp_path: Path, digest: str
) -> None:
    """Who appends a line to its serving code alters or deletes the tag too."""
    run = cycle(tmp_path, client.tracking_uri, 0, None)
    model = register_bundle(client, run, tmp_path)
    arguments = (run, challenger_of(model), NO_ANCHOR, judgement_of(run, model))
    promotion.move_if_permitted(*arguments, NOW)
    require_agreement(state_of(client, run))
    client.delete_model_version_tag(model.name, model.version, "model_digest")
    if digest:
        client.set_model_version_tag(model.name, model.version, "model_digest", digest)
    with pytest.raises(RecordDisagreesError, match=f"have digest {digest[:12] or '.none.'}, and"):
        require_record(client, run.workspace_uri, run.registered_model)
    with pytest.raises(ConfigurationError, match="the alias names what the history does.*--to-ver"):
        mend(client, state_of(client, run), "the history is right", True)
    mend(client, state_of(client, run), "somebody looked at the files", False)
    require_record(client, run.workspace_uri, run.registered_model)


@pytest.mark.parametrize("is_followed", [False, True])
def test_a_hand_that_moves_the_alias_to_the_version_before(
    runs: list[ResolvedRun], client: MlflowClient, is_followed: bool
) -> None:
    """Before the move was marked it cannot be told from a lost write; then it is set forward."""
    run = runs[1]
    where = (run.workspace_uri, run.registered_model)
    known = state_of(client, run).history
    if not is_followed:
        for name in storage.list_names(storage.join(run.workspace_uri, "history", where[1])):
            if name == "00000002.followed.json":
                deletion.remove(storage.join(run.workspace_uri, "history", where[1], name))
        history.begin_attempt(*where, known.newest.number)
    client.set_registered_model_alias(run.registered_model, "champion", "1")
    if is_followed:
        with pytest.raises(RecordDisagreesError, match="v1 serves.* v2 does"):
            require_record(client, *where)
        assert state_of(client, run).serves == "1"
    else:
        assert require_record(client, *where, may_settle=False).serves == "1"
        assert require_record(client, *where).serves == "2"
        assert state_of(client, run).serves == "2"
        assert history.was_set_again(*where, 2)


def test_an_alias_that_is_moved_while_a_promotion_is_half_done_stops_it(
    runs: list[ResolvedRun], client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = runs[1]
    where = (two.workspace_uri, two.registered_model)
    serves = registry.read_champion(client, two.registered_model)
    fields = {"champion": serves, "as_of": two.as_of + timedelta(days=14), "run_id": "third"}
    newest = history.load(*where).newest
    uri = {"run_uri": f"{two.run_uri}-third", "newest_entry": newest}
    third = two.model_copy(update=fields | uri)
    with monkeypatch.context() as patch:
        patch.setattr(history, "begin_attempt", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            promote_bundle(client, third, tmp_path)
    client.set_registered_model_alias(two.registered_model, "champion", "1")
    with pytest.raises(RecordDisagreesError, match="v1 serves.* v3 does"):
        require_record(client, *where)
    state = state_of(client, two)
    assert "point the alias at" in propose(client, state, True)[0]
    mend(client, state, "the promotion was right", True)
    assert require_record(client, *where).serves == "3"


def test_the_same_repair_given_again_writes_nothing(
    runs: list[ResolvedRun], client: MlflowClient
) -> None:
    run = runs[1]
    assert mend(client, state_of(client, run), "v1 after all", False, "1") is not None
    for to_version in ("1", None):
        assert mend(client, state_of(client, run), "v1 after all", False, to_version) is None
    assert len(state_of(client, run).history.placed) == 3
