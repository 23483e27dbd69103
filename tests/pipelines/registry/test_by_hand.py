"""Rollback and promotion by hand; repairs are in test_reconcile.py, recipes in test_anchor.py."""

import contextlib
from pathlib import Path

import pytest

from pipelines.contracts.errors import (
    ConfigurationError,
    DataContractError,
    RecordDisagreesError,
    TrackingEntryMissingError,
)
from pipelines.registry import by_hand, history, registry
from pipelines.settings import Settings
from support.damage import flip_a_byte
from support.desk import Desk, at


def test_rollback_and_who_was_serving(desk: Desk) -> None:
    first = desk.promote(desk.cycle(0)).champion_after
    desk.promote(desk.cycle(1), days=14)
    assert desk.rollback(days=15).model == first == desk.champion

    def serving(days: float) -> str:
        return history.serving_at(desk.history, desk.name, at(days)).model.version

    assert [serving(0), serving(13.9), serving(14), serving(15)] == ["1", "1", "2", "1"]
    with pytest.raises(ConfigurationError, match="nothing of .* was serving"):
        serving(-1)
    again = desk.rollback("1", days=16, why="again")
    assert (again.moved_at, again.reason) == (at(15), "hides rose")
    assert len(desk.history.placed) == 3


def test_a_forced_promotion_is_recorded_and_can_be_taken_back(desk: Desk) -> None:
    first = desk.promote(desk.cycle(0)).champion_after
    later = desk.cycle(1)
    model = desk.register(later)
    with pytest.raises(ConfigurationError, match="--reason is empty"):
        desk.force(later, model, 1, "  ")
    entry = desk.force(later, model, 1, "the log was late")
    assert (entry.kind, entry.previous, entry.reason) == ("forced", first, "the log was late")
    assert desk.champion == model
    again = desk.force(later, model, 2, "again")
    assert (again.moved_at, again.reason) == (at(1), "the log was late")
    assert desk.kinds() == ["promotion", "forced"]
    desk.rollback()
    assert desk.champion == first


def test_a_version_that_is_down_already_is_not_taken_down_twice(desk: Desk) -> None:
    first, second = desk.promote_two()
    for days in range(9, 12):
        found = desk.rollback(days=days, away=second.version)
        assert (found.model, found.moved_at) == (first, at(9))
    with pytest.raises(ConfigurationError, match="serves, and not v9"):
        desk.rollback(away="9")


def test_a_version_without_its_files_or_that_does_not_score_is_refused(
    desk: Desk, tmp_path: Path
) -> None:
    first, second = desk.promote_two()
    missing = "has no version '99' .* expected one of 1, 2"
    with pytest.raises(TrackingEntryMissingError, match=missing):
        desk.rollback("99")
    golden = registry.download_bundle(desk.client, first, tmp_path / "down") / "golden.safetensors"
    flip_a_byte(golden)
    desk.client.log_artifact(first.mlflow_run_id, str(golden), "model/artifacts/bundle")
    with pytest.raises(DataContractError, match="v1 cannot serve, so the champion stays"):
        desk.rollback()
    desk.client.delete_model_version_tag(first.name, first.version, "model_digest")
    with pytest.raises(DataContractError, match="found bundle .* and model unknown in its tags"):
        desk.rollback()
    assert desk.champion == second and len(desk.history.placed) == 2


def test_what_serves_by_a_promotion_is_neither_gone_back_to_nor_forced(desk: Desk) -> None:
    _, second = desk.promote_two()
    for act in (
        lambda: desk.rollback("2"),
        lambda: desk.force(desk.cycle(1), second, 9, "we want it"),
    ):
        with pytest.raises(ConfigurationError, match="v2 is the champion already"):
            act()
    desk.point_at("1")
    with pytest.raises(RecordDisagreesError, match="v1 serves, .* v2 does.*homefeed history"):
        desk.rollback()


def test_a_person_s_move_that_lost_its_number_is_decided_anew(desk: Desk) -> None:
    """Another cycle promotes while the rollback looks at its target."""
    _, second = desk.promote_two()
    third = desk.cycle(2)
    with pytest.MonkeyPatch.context() as patch:
        create = history.create

        def come_first(*arguments: object) -> history.History:
            patch.undo()
            patch.setattr(history, "promotion_lock", lambda place: contextlib.nullcontext())
            desk.promote(third)
            return create(*arguments)  # type: ignore[arg-type]

        patch.setattr(history, "create", come_first)
        entry = desk.rollback()
    found = desk.history.of_run(third.run_uri)
    assert found is not None and (entry.previous, entry.model) == (found[1].model, second)


def test_a_folder_without_a_workspace_is_refused(desk: Desk, tmp_path: Path) -> None:
    settings = Settings(workspace=str(tmp_path / "typo"), tracking_uri=desk.client.tracking_uri)
    with pytest.raises(ConfigurationError, match=r"there is no workspace at file:///.*typo"):
        by_hand.rollback(desk.client, settings, None, at(9), "hides rose")
    assert not (tmp_path / "typo").exists()
