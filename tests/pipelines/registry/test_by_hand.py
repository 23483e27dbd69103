"""Rollback and promotion by hand, against a real MLflow server."""

import contextlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipelines.contracts.artifacts import ModelRef, ResolvedRun
from pipelines.contracts.errors import (
    ConfigurationError,
    DataContractError,
    RecordDisagreesError,
    TrackingEntryMissingError,
)
from pipelines.registry import by_hand, history, registry, tracking
from pipelines.settings import Settings
from support.damage import flip_a_byte
from support.registered import NOW, challenger_of, promote_bundle, register_bundle
from support.runs import make_run

pytestmark = pytest.mark.services
FIRST = datetime(2017, 6, 12, tzinfo=UTC)
SECOND = FIRST + timedelta(days=14)


@pytest.fixture
def client(tracking_uri: str) -> MlflowClient:
    return tracking.connect(tracking_uri)


def cycle(tmp_path: Path, tracking_uri: str, as_of: datetime, **overrides: object) -> ResolvedRun:
    name = f"by_hand_{tmp_path.name}"
    return make_run(
        tmp_path,
        as_of=as_of,
        tracking_uri=tracking_uri,
        registered_model=name,
        experiment=name,
        **overrides,
    )


def champion(client: MlflowClient, run: ResolvedRun) -> ModelRef | None:
    return registry.read_champion(client, run.registered_model)


def settings_of(run: ResolvedRun) -> Settings:
    return Settings(
        workspace=run.workspace_uri,
        tracking_uri=run.tracking_uri,
        registered_model=run.registered_model,
    )


@pytest.fixture
def two(
    tmp_path: Path, tracking_uri: str, client: MlflowClient
) -> tuple[ResolvedRun, ModelRef, ModelRef]:
    """The second cycle's run, and the models of two cycles, the second of which serves."""
    run = cycle(tmp_path, tracking_uri, FIRST)
    first = promote_bundle(client, run, tmp_path)
    later = cycle(tmp_path, tracking_uri, SECOND, champion=first)
    return later, first, promote_bundle(client, later, tmp_path, NOW + timedelta(days=14))


def test_rollback_and_who_was_serving(
    tmp_path: Path, tracking_uri: str, client: MlflowClient
) -> None:
    run = cycle(tmp_path, tracking_uri, FIRST)
    first = promote_bundle(client, run, tmp_path)
    later = cycle(tmp_path, tracking_uri, SECOND, champion=first)
    promote_bundle(client, later, tmp_path, NOW + timedelta(days=14))
    settings = Settings(
        workspace=str(tmp_path / "workspace"),
        tracking_uri=tracking_uri,
        registered_model=run.registered_model,
    )
    moved_at = NOW + timedelta(days=15)
    entry = by_hand.rollback(client, settings, None, moved_at, "hides rose")
    assert entry.model == first
    assert champion(client, run) == first

    def serving(days: float) -> str:
        instant = NOW + timedelta(days=days)
        known = history.load(run.workspace_uri, run.registered_model)
        found = history.serving_at(known, run.registered_model, instant)
        return found.model.version

    assert [serving(0), serving(13.9), serving(14), serving(15)] == ["1", "1", "2", "1"]
    with pytest.raises(ConfigurationError, match="nothing of .* was serving"):
        serving(-1)
    again = by_hand.rollback(client, settings, "1", moved_at + timedelta(days=1), "again")
    assert (again.moved_at, again.reason) == (moved_at, "hides rose")
    assert len(history.read(run.workspace_uri, run.registered_model)) == 3


def test_a_forced_promotion_is_recorded_and_can_be_taken_back(
    tmp_path: Path, tracking_uri: str, client: MlflowClient
) -> None:
    run = cycle(tmp_path, tracking_uri, FIRST)
    first = promote_bundle(client, run, tmp_path)
    later = cycle(tmp_path, tracking_uri, SECOND, champion=first, run_id="later")
    challenger = challenger_of(register_bundle(client, later, tmp_path))
    with pytest.raises(ConfigurationError, match="--reason is empty"):
        by_hand.force(client, later, challenger, NOW + timedelta(days=1), "  ")
    moved_at = NOW + timedelta(days=1)
    entry = by_hand.force(client, later, challenger, moved_at, "the log was late")
    assert (entry.kind, entry.previous, entry.reason) == ("forced", first, "the log was late")
    assert champion(client, run) == challenger.model
    again = by_hand.force(client, later, challenger, moved_at + timedelta(days=1), "again")
    assert (again.moved_at, again.reason) == (moved_at, "the log was late")
    assert len(history.read(run.workspace_uri, run.registered_model)) == 2
    settings = Settings(
        workspace=str(tmp_path / "workspace"),
        tracking_uri=tracking_uri,
        registered_model=run.registered_model,
    )
    by_hand.rollback(client, settings, None, NOW + timedelta(days=2), "it was worse")
    assert champion(client, run) == first


LATER = NOW + timedelta(days=20)


def test_a_version_that_is_down_already_is_not_taken_down_twice(
    two: tuple[ResolvedRun, ModelRef, ModelRef], client: MlflowClient
) -> None:
    run, first, second = two
    settings, version = settings_of(run), second.version
    for hours in range(3):
        now = LATER + timedelta(hours=hours)
        found = by_hand.rollback(client, settings, None, now, "hides rose", version)
        assert (found.model, found.moved_at) == (first, LATER)
    with pytest.raises(ConfigurationError, match="serves, and not v9"):
        by_hand.rollback(client, settings, None, LATER, "hides rose", "9")


def test_a_version_without_its_files_or_that_does_not_score_is_refused(
    two: tuple[ResolvedRun, ModelRef, ModelRef], client: MlflowClient, tmp_path: Path
) -> None:
    run, first, second = two
    settings = settings_of(run)
    missing = "has no version '99' .* expected one of 1, 2"
    with pytest.raises(TrackingEntryMissingError, match=missing):
        by_hand.rollback(client, settings, "99", LATER, "hides rose")
    bundle = registry.download_bundle(client, first, tmp_path / "down")
    golden = bundle / "golden.safetensors"
    flip_a_byte(golden)
    client.log_artifact(first.mlflow_run_id, str(golden), "model/artifacts/bundle")
    with pytest.raises(DataContractError, match="v1 cannot serve, so the champion stays"):
        by_hand.rollback(client, settings, None, LATER, "hides rose")
    assert champion(client, run) == second
    assert len(history.read(run.workspace_uri, run.registered_model)) == 2


def test_what_serves_by_a_promotion_is_neither_gone_back_to_nor_forced(
    two: tuple[ResolvedRun, ModelRef, ModelRef], client: MlflowClient
) -> None:
    run, _, second = two
    with pytest.raises(ConfigurationError, match="v2 is the champion already"):
        by_hand.rollback(client, settings_of(run), "2", LATER, "hides rose")
    with pytest.raises(ConfigurationError, match="v2 is the champion already"):
        by_hand.force(client, run, challenger_of(second), LATER, "we want it")


def test_an_alias_that_was_moved_by_hand_stops_a_rollback(
    two: tuple[ResolvedRun, ModelRef, ModelRef], client: MlflowClient
) -> None:
    run = two[0]
    client.set_registered_model_alias(run.registered_model, "champion", "1")
    with pytest.raises(RecordDisagreesError, match="v1 serves, .* v2 does.*homefeed history"):
        by_hand.rollback(client, settings_of(run), None, LATER, "hides rose")


def test_a_person_s_move_that_lost_its_number_is_decided_anew(
    two: tuple[ResolvedRun, ModelRef, ModelRef], client: MlflowClient, tmp_path: Path
) -> None:
    """Another cycle promotes while the rollback looks at its target."""
    run, _, second = two
    third = cycle(
        tmp_path, client.tracking_uri, SECOND + timedelta(days=14), champion=second, run_id="third"
    )
    with pytest.MonkeyPatch.context() as patch:
        create = history.create

        def come_first(*arguments: object) -> history.History:
            patch.undo()
            patch.setattr(history, "promotion_lock", lambda place: contextlib.nullcontext())
            promote_bundle(client, third, tmp_path, NOW)
            return create(*arguments)  # type: ignore[arg-type]

        patch.setattr(history, "create", come_first)
        entry = by_hand.rollback(client, settings_of(run), None, LATER, "hides rose")
    assert (entry.previous, entry.model) == (champion_of(third), second)


def champion_of(run: ResolvedRun) -> ModelRef:
    """Return the model that a cycle promoted."""
    found = history.load(run.workspace_uri, run.registered_model).of_run(run.run_uri)
    assert found is not None
    return found[1].model


def test_a_folder_without_a_workspace_is_refused(client: MlflowClient, tmp_path: Path) -> None:
    settings = Settings(workspace=str(tmp_path / "typo"), tracking_uri=client.tracking_uri)
    with pytest.raises(ConfigurationError, match="there is no workspace at file:///.*typo"):
        by_hand.rollback(client, settings, None, LATER, "hides rose")
    assert not (tmp_path / "typo").exists()
