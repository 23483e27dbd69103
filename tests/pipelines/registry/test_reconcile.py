"""Alias and history held against each other, and mended, with a real MLflow server."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipelines import storage
from pipelines.contracts.artifacts import ModelRef, ResolvedRun
from pipelines.contracts.errors import (
    ConfigurationError,
    PromotionRefusedError,
    RecordDisagreesError,
)
from pipelines.registry import history, promotion, registry, tracking
from pipelines.registry.reconcile import State, look, propose, repair, require_agreement
from support.registered import NO_ANCHOR, challenger_of, judgement_of, register_bundle
from support.runs import make_run

pytestmark = pytest.mark.services
DAY = datetime(2017, 6, 12, tzinfo=UTC)
NOW = datetime(2026, 3, 1, tzinfo=UTC)
LATER = NOW + timedelta(days=9)


@pytest.fixture
def client(tracking_uri: str) -> MlflowClient:
    return tracking.connect(tracking_uri)


def cycle(folder: Path, tracking_uri: str, number: int, champion: ModelRef | None) -> ResolvedRun:
    return make_run(
        folder,
        as_of=DAY + timedelta(days=14 * number),
        tracking_uri=tracking_uri,
        registered_model="reconciled",
        experiment="reconciled",
        champion=champion,
    )


def promote(client: MlflowClient, run: ResolvedRun, folder: Path) -> ModelRef:
    model = register_bundle(client, run, folder)
    judgement = judgement_of(run, model)
    promotion.move_if_permitted(run, challenger_of(model), NO_ANCHOR, judgement, NOW)
    return model


@pytest.fixture
def runs(tmp_path: Path, client: MlflowClient) -> list[ResolvedRun]:
    """Two cycles, each of which promoted a model of a registered model of its own."""
    name = f"reconciled_{tmp_path.name}"
    one = cycle(tmp_path, client.tracking_uri, 0, None)
    one = one.model_copy(update={"registered_model": name})
    first = promote(client, one, tmp_path)
    two = cycle(tmp_path, client.tracking_uri, 1, first)
    two = two.model_copy(update={"registered_model": name})
    promote(client, two, tmp_path)
    return [one, two]


def state_of(client: MlflowClient, run: ResolvedRun) -> State:
    return look(client, run.workspace_uri, run.registered_model)


def test_nothing_is_to_be_mended_where_they_agree(
    runs: list[ResolvedRun], client: MlflowClient
) -> None:
    state = state_of(client, runs[0])
    require_agreement(state)
    assert propose(state, False) == propose(state, True) == []
    assert repair(client, state, LATER, "for nothing", False) is None
    assert len(state_of(client, runs[0]).history.moves) == 2


@pytest.mark.parametrize("restores", [False, True])
def test_an_alias_that_was_moved_by_hand(
    runs: list[ResolvedRun], client: MlflowClient, restores: bool
) -> None:
    run = runs[1]
    client.set_registered_model_alias(run.registered_model, "champion", "1")
    state = state_of(client, run)
    with pytest.raises(RecordDisagreesError, match="v1 serves.* v2 does.*homefeed history repair"):
        require_agreement(state)
    [step] = propose(state, restores)
    assert ("point the alias at" in step, "record that" in step) == (restores, not restores)
    with pytest.raises(ConfigurationError, match="--reason is empty"):
        repair(client, state, LATER, " ", restores)
    entry = repair(client, state, LATER, "somebody tried something", restores)
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
        repair(client, state, LATER, "it was deleted", False)
    repair(client, state, LATER, "it was deleted", True)
    require_agreement(state_of(client, run))
    assert registry.read_champion_version(client, run.registered_model) == "2"


def test_a_damaged_entry_is_named_and_acknowledged_once(
    runs: list[ResolvedRun], client: MlflowClient
) -> None:
    run = runs[1]
    path = storage.local_path(state_of(client, run).history.moves[1].uri)
    path.write_text("{")
    state = state_of(client, run)
    require_agreement(state)  # The damage explains why the history does not know what serves.
    assert [path.name in step for step in propose(state, False)] == [False, True]
    repair(client, state, LATER, "the disk had failed", False)
    after = state_of(client, run)
    assert after.history.damaged == () and after.recorded == "2"
    assert propose(after, False) == []


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
        promote(client, run, tmp_path)
    state = state_of(client, run)
    assert len(propose(state, False)) == 2
    repair(client, state, LATER, "the workspace was moved", False)
    require_agreement(state_of(client, run))
    with pytest.raises(RecordDisagreesError, match="is kept by workspace .*elsewhere"):
        require_agreement(state_of(client, two))


def test_what_was_begun_by_somebody_else_is_settled_by_whoever_moves_next(
    runs: list[ResolvedRun], client: MlflowClient, tmp_path: Path
) -> None:
    two = runs[1]
    third = two.model_copy(
        update={
            "champion": registry.read_champion(client, two.registered_model),
            "as_of": two.as_of + timedelta(days=14),
            "run_uri": f"{two.run_uri}-third",
        }
    )
    model = register_bundle(client, third, tmp_path)
    known = state_of(client, two).history
    entry = known.entries[-1][1].model_copy(
        update={"model": model, "previous": third.champion, "run_uri": third.run_uri}
    )
    history.begin(two.workspace_uri, known, entry)  # Then the process was killed.
    require_agreement(state_of(client, two))
    fourth = third.model_copy(update={"run_uri": f"{two.run_uri}-fourth"})
    promote(client, fourth, tmp_path)
    with pytest.raises(PromotionRefusedError, match="given up at .* a cycle promotes at most once"):
        promotion.move_if_permitted(
            third, challenger_of(model), NO_ANCHOR, judgement_of(third, model), LATER
        )
    assert len(state_of(client, two).history.entries) == 3
