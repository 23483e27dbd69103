from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipelines import storage
from pipelines.contracts.artifacts import ResolvedRun, StageRecord
from pipelines.contracts.errors import (
    ConfigurationError,
    DataContractError,
    TrackingUnavailableError,
)
from pipelines.contracts.run_layout import manifest_uri
from pipelines.contracts.schemas import EVENT_LOG_TABLES
from pipelines.registry import promotion, tracking
from pipelines.settings import Settings
from pipelines.stages import resolve_run as resolve
from support.registered import challenger_of, judgement_of, register_bundle
from support.runs import make_run

pytestmark = pytest.mark.services
AS_OF = datetime(2017, 6, 12, tzinfo=UTC)


@pytest.fixture
def settings(tmp_path: Path, tracking_uri: str) -> Settings:
    for table in EVENT_LOG_TABLES:
        (tmp_path / "event_log" / table).mkdir(parents=True)
    return Settings(
        home=str(tmp_path), tracking_uri=tracking_uri, registered_model=f"r_{tmp_path.name}"
    )


def request(**overrides: object) -> resolve.RunRequest:
    fields = {
        "recipe": "smoke",
        "as_of": AS_OF,
        "now": AS_OF,
        "may_promote": True,
        "num_devices": 1,
        "trigger": "test",
    }
    return resolve.RunRequest(**(fields | overrides))


def test_the_run_is_complete_and_survives_json(settings: Settings) -> None:
    run = resolve.resolve_run(request(), settings)
    assert run.champion is None
    assert ResolvedRun.model_validate_json(run.model_dump_json()) == run
    record = storage.read_model(manifest_uri(run.run_uri, "resolve_run"), StageRecord)
    assert ResolvedRun.model_validate(record.artifact) == run


@pytest.mark.parametrize("now", [AS_OF, AS_OF + timedelta(hours=23, minutes=59)])
def test_without_as_of_now_is_floored_to_the_day(settings: Settings, now: datetime) -> None:
    run = resolve.resolve_run(request(as_of=None, now=now), settings)
    assert run.as_of == AS_OF
    assert run.run_id.startswith("2017-06-12--")


def test_the_same_trigger_is_the_same_run_whatever_moved(
    settings: Settings, tmp_path: Path, tracking_uri: str
) -> None:
    first = resolve.resolve_run(request(), settings)
    make_champion(settings, tmp_path, tracking_uri, AS_OF - timedelta(days=14))
    assert resolve.resolve_run(request(), settings) == first
    other = resolve.resolve_run(request(trigger="another"), settings)
    assert other.run_id != first.run_id
    assert other.champion is not None


def make_champion(settings: Settings, tmp_path: Path, uri: str, as_of: datetime) -> None:
    run = make_run(
        tmp_path, as_of=as_of, tracking_uri=uri, registered_model=settings.registered_model
    )
    model = register_bundle(tracking.connect(uri), run, tmp_path)
    promotion.promote_challenger(run, challenger_of(model), judgement_of(run, model), AS_OF)


def test_as_of_must_be_newer_than_the_champions(
    settings: Settings, tmp_path: Path, tracking_uri: str
) -> None:
    make_champion(settings, tmp_path, tracking_uri, AS_OF)
    with pytest.raises(ConfigurationError, match="not newer than the champion's"):
        resolve.resolve_run(request(), settings)
    assert storage.list_names(storage.to_uri(tmp_path / "workspace" / "runs")) == []
    run = resolve.resolve_run(request(may_promote=False), settings)
    assert run.champion is not None


def test_an_unknown_recipe_lists_those_there_are(settings: Settings) -> None:
    with pytest.raises(ConfigurationError, match="completejourney"):
        resolve.resolve_run(request(recipe="nonsense"), settings)


def test_a_missing_event_log_says_how_to_write_one(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "event_log" / "actions").rmdir()
    with pytest.raises(DataContractError, match=r"\['actions'\] are missing.*homefeed ingest"):
        resolve.resolve_run(request(), settings)


def test_mlflow_down_is_worth_a_retry(settings: Settings, unused_url: str) -> None:
    down = settings.model_copy(update={"tracking_uri": unused_url})
    with pytest.raises(TrackingUnavailableError, match="does not answer") as caught:
        resolve.resolve_run(request(), down)
    assert caught.value.is_retryable


def test_a_password_in_the_tracking_uri_is_refused(settings: Settings) -> None:
    leaky = settings.model_copy(update={"tracking_uri": "http://me:secret@127.0.0.1:5000"})
    with pytest.raises(ConfigurationError) as caught:
        resolve.resolve_run(request(), leaky)
    assert "secret" not in str(caught.value)


def test_the_reference_is_the_newest_accepted_before(settings: Settings, tmp_path: Path) -> None:
    workspace_uri = storage.to_uri(tmp_path / "workspace")
    for days, name in ((-28, "a"), (-14, "b"), (14, "c")):
        as_of = AS_OF + timedelta(days=days)
        uri = storage.join(workspace_uri, "snapshots", name)
        storage.write_bytes(f"{uri}/manifest.json", b"{}")
        marker = resolve.AcceptedSnapshot(as_of=as_of, snapshot_uri=uri, recipe="smoke")
        folder = resolve.accepted_folder(workspace_uri, "smoke")
        storage.write_model(storage.join(folder, f"{as_of:%Y-%m-%d}--{name}.json"), marker)
    run = resolve.resolve_run(request(), settings)
    assert run.last_accepted_snapshot_uri == storage.join(workspace_uri, "snapshots", "b")
