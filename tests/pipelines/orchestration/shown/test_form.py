"""The trigger form says what fits, from small local reads that cannot fail."""

import json
import os
import runpy
import time
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from airflow.models.serialized_dag import SerializedDagModel
from airflow.serialization.serialized_objects import DagSerialization

from pipelines import storage
from pipelines.contracts.artifacts import ModelRef
from pipelines.orchestration.shown.form import (
    about_as_of,
    about_recipe,
    champion_on_record,
    free_text,
    hold_text,
    newest_as_of,
)
from pipelines.recipes import RECIPES
from pipelines.registry import history
from pipelines.settings import Settings

AT = datetime(2017, 12, 18, tzinfo=UTC)
S3 = Settings(event_log="s3://bucket/log", workspace="s3://bucket/w")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=str(tmp_path))


def write_days(settings: Settings, *days: str) -> None:
    for day in days:
        (Path(settings.event_log_location) / "impressions" / f"day={day}").mkdir(parents=True)


def move_champion(settings: Settings, version: str, as_of: datetime, is_made: bool = True) -> None:
    """Record a move as promotions do."""
    workspace = storage.to_uri(settings.workspace_location)
    name = settings.registered_model
    entry = history.HistoryEntry(
        moved_at=AT,
        kind="promotion",
        model=ModelRef(
            name=name,
            version=version,
            mlflow_run_id="r",
            as_of=as_of,
            bundle_digest="d" * 64,
            snapshot_digest="s" * 64,
        ),
        previous=None,
        run_uri=None,
        reason="Because.",
    )
    move = history.begin(workspace, history.load(workspace, name), entry)
    history.settle(move, is_made, AT)


def test_it_names_the_days_of_the_log_and_the_newest_day_to_enter(settings: Settings) -> None:
    write_days(settings, "2017-12-31", "2017-01-02", "2017-06-05")
    said = about_as_of(settings)
    assert "has the days 2017-01-02 to 2017-12-31, so that 2018-01-01 is the newest day" in said
    assert newest_as_of(date(2017, 12, 31)) == date(2018, 1, 1)


def test_it_names_the_champion_that_the_record_names(settings: Settings) -> None:
    assert "No champion is on record here." in about_as_of(settings)
    move_champion(settings, "3", datetime(2017, 12, 4, tzinfo=UTC))
    move_champion(settings, "4", AT, is_made=False)
    assert champion_on_record(settings) == ("homefeed_ranker v3", "2017-12-04")
    assert "homefeed_ranker v3, trained as of 2017-12-04: a promotion needs" in about_as_of(
        settings
    )


def test_during_a_run_the_dag_stays_as_it_was(
    settings: Settings, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOMEFEED_HOME", settings.home)

    def digest() -> str:
        dag = runpy.run_path(str(repository / "dags" / "homefeed_retrain.py"))["homefeed_retrain"]
        return SerializedDagModel.hash(DagSerialization.to_dict(dag))

    write_days(settings, "2017-12-30")
    before = digest()
    hold_text(settings)
    write_days(settings, "2017-12-31")
    move_champion(settings, "4", AT)
    hold_text(settings)  # the run is cleared
    assert digest() == before and "2017-12-30 to 2017-12-30" in about_as_of(settings)
    free_text(settings)
    free_text(settings)
    assert digest() != before
    assert "2017-12-30 to 2017-12-31" in about_as_of(settings)
    assert "homefeed_ranker v4" in about_as_of(settings)


def test_what_is_held_damaged_or_cannot_be_written_stops_nothing(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    schedule = Path(settings.workspace_location) / "schedule"
    schedule.parent.mkdir(parents=True)
    schedule.write_text("a file")
    hold_text(settings)
    free_text(settings)
    assert "may change during this run" in caplog.text
    assert "goes on saying what it said" in caplog.text
    schedule.unlink()
    schedule.mkdir()
    (schedule / "form.json").write_text("[]")
    assert "No champion is on record here." in about_as_of(settings)
    hold_text(S3)
    free_text(S3)
    assert "is not known here" in about_as_of(S3)


def test_a_text_that_nobody_freed_is_held_no_longer_than_a_run(
    settings: Settings, repository: Path
) -> None:
    dag = runpy.run_path(str(repository / "dags" / "homefeed_retrain.py"))["homefeed_retrain"]
    place = Path(settings.workspace_location) / "schedule" / "form.json"
    hold_text(settings)
    write_days(settings, "2017-12-31")
    longest = dag.dagrun_timeout.total_seconds()
    os.utime(place, (time.time() - longest,) * 2)
    assert "none is found" in about_as_of(settings)
    os.utime(place, (time.time() - 2 * longest,) * 2)
    assert "2017-12-31 to 2017-12-31" in about_as_of(settings)
    hold_text(settings)
    write_days(settings, "2018-01-01")
    assert "2017-12-31 to 2017-12-31" in about_as_of(settings)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"is_made": true}'])
def test_a_damaged_record_and_a_strange_folder_do_not_stop_it(
    settings: Settings, text: str
) -> None:
    move_champion(settings, "3", AT)
    folder = Path(settings.workspace_location) / "history" / settings.registered_model
    for file in folder.glob("*.json"):
        file.chmod(0o600)
        file.write_text(text)
    write_days(settings, "2017-99-99")
    said = about_as_of(settings)
    assert "none is found" in said and "No champion is on record here." in said


def test_of_a_store_it_says_that_nothing_is_known() -> None:
    began = time.monotonic()
    said = about_as_of(S3)
    assert said.count("is not known here") == 2 and champion_on_record(S3) is None
    assert time.monotonic() - began < 0.5


def test_each_recipe_is_told_with_its_purpose() -> None:
    said = about_recipe(Settings(recipe="ours.recipes:best"))
    for name, make in RECIPES.items():
        purpose = (make.__doc__ or "").splitlines()[0].removeprefix("Return ").replace("`", "")
        assert f"- **{name}**: {purpose}" in said
    assert "- **ours.recipes:best**: this deployment's own." in said


def test_the_dag_shows_it(
    settings: Settings, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOMEFEED_HOME", settings.home)
    write_days(settings, "2017-12-30", "2017-12-31")
    dag = runpy.run_path(str(repository / "dags" / "homefeed_retrain.py"))["homefeed_retrain"]
    described = {name: dag.params.get_param(name).description for name in dag.params}
    assert described["as_of"] == about_as_of(Settings())
    assert dag.params.get_param("recipe").schema["description_md"] == about_recipe(Settings())
    assert json.loads(json.dumps(described)) == described
