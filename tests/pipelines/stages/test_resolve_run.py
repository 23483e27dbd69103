"""`resolve_run`, called as the DAG and the command line call it: through the runner."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipelines import storage
from pipelines.contracts.artifacts import ModelRef, ResolvedRun, RunRequest
from pipelines.contracts.code_identity import code_digest, code_version
from pipelines.contracts.errors import (
    ConfigurationError,
    DataContractError,
    HomefeedError,
    TrackingUnavailableError,
)
from pipelines.contracts.run_layout import StageFailure, StageRecord, failure_uri, manifest_uri
from pipelines.recipes import canonical
from pipelines.registry import moves, tracking
from pipelines.registry.evidence import JudgedSnapshot, accepted_folder
from pipelines.settings import Settings
from pipelines.stages.light import run_uri_of
from pipelines.stages.runner import start_run
from support.registered import NO_ANCHOR, challenger_of, judgement_of, register_bundle
from support.runs import make_run
from support.worlds import write_planted_world

pytestmark = pytest.mark.services
AS_OF = datetime(2017, 6, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def event_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log that covers every as_of of these tests."""
    folder = tmp_path_factory.mktemp("log")
    write_planted_world(folder, start=datetime(2017, 4, 1, tzinfo=UTC), num_days=102)
    return folder


@pytest.fixture
def settings(tmp_path: Path, tracking_uri: str, event_log: Path) -> Settings:
    shutil.copytree(event_log, tmp_path / "event_log")
    return Settings(
        home=str(tmp_path), tracking_uri=tracking_uri, registered_model=f"r_{tmp_path.name}"
    )


def request(**overrides: object) -> RunRequest:
    fields = {"recipe": "smoke", "as_of": AS_OF, "now": AS_OF, "may_promote": True}
    return RunRequest(**(fields | {"num_devices": 1, "trigger": "test"} | overrides))


@pytest.mark.parametrize(
    ("as_of", "now"), [(AS_OF, AS_OF), (None, AS_OF), (None, AS_OF + timedelta(hours=23))]
)
def test_the_run_is_complete_survives_json_and_has_the_day_of_now_where_none_is_named(
    settings: Settings, as_of: datetime | None, now: datetime
) -> None:
    settings = settings.model_copy(
        update={"work_folder": "/w"}
    )  # which a local workspace needs not
    run = start_run(request(as_of=as_of, now=now), settings)
    assert run.champion is None and run.as_of == AS_OF and run.run_id.startswith("2017-06-12--")
    assert run.work_folder == ""
    assert (run.code_version, run.code_digest) == (code_version(), code_digest())
    assert ResolvedRun.model_validate_json(run.model_dump_json()) == run
    record = storage.read_model(manifest_uri(run.run_uri, "resolve_run"), StageRecord)
    assert ResolvedRun.model_validate(record.artifact) == run


def test_the_same_trigger_is_the_same_run_whatever_moved(
    settings: Settings, tmp_path: Path
) -> None:
    first = start_run(request(), settings)
    make_champion(settings, tmp_path, AS_OF - timedelta(days=14))
    assert start_run(request(), settings) == first
    other = start_run(request(trigger="another"), settings)
    assert other.run_id != first.run_id
    assert other.champion is not None


def test_two_that_resolve_at_once_get_one_run(settings: Settings) -> None:
    """Their requests differ, so that the second one would resolve to another run."""
    requests = [request(num_devices=number) for number in (1, 2)]
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda each: start_run(each, settings), requests)
    assert one == other == start_run(requests[0], settings)


def make_champion(
    settings: Settings, tmp_path: Path, as_of: datetime, before: ModelRef | None = None
) -> ModelRef:
    places = settings.model_dump(include={"tracking_uri", "registered_model"})
    run = make_run(tmp_path, as_of=as_of, champion=before, **places)
    model = register_bundle(tracking.connect(settings.tracking_uri), run, tmp_path)
    judgement = judgement_of(run, model)
    moves.promote_challenger(run, challenger_of(model), NO_ANCHOR, judgement, AS_OF)
    return model


def test_as_of_must_be_newer_than_the_champions_and_an_older_one_meets_who_served_then(
    settings: Settings, tmp_path: Path
) -> None:
    then = make_champion(settings, tmp_path, AS_OF - timedelta(days=14))
    now = make_champion(settings, tmp_path, AS_OF + timedelta(days=14), then)
    with pytest.raises(ConfigurationError, match="not newer than the champion's"):
        start_run(request(), settings)
    run_uri = run_uri_of(request(), settings)
    assert not storage.exists(manifest_uri(run_uri, "resolve_run"))
    failure = storage.read_model(failure_uri(run_uri, "resolve_run"), StageFailure)
    assert (failure.error_class, failure.exit_code) == ("ConfigurationError", 78)
    run = start_run(request(may_promote=False), settings)
    assert (run.champion, run.later_champion) == (then, now)
    assert not storage.exists(failure_uri(run_uri, "resolve_run"))
    fresh = start_run(request(as_of=AS_OF + timedelta(days=28)), settings)
    assert (fresh.champion, fresh.later_champion) == (now, None)


@pytest.mark.parametrize(
    ("asked", "error", "told"),
    [
        ({"lost": "actions"}, DataContractError, "no table 'actions'.* HOMEFEED_EVENT_LOG"),
        ({"tracking_uri": ""}, TrackingUnavailableError, "does not answer"),
        (
            {"tracking_uri": "http://me:secret@127.0.0.1:5000"},
            ConfigurationError,
            "HOMEFEED_TRACKING_URI",
        ),
        ({"num_devices": 9}, ConfigurationError, "9 training .* on 2 usable.*at most 8"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_built_and_noted(
    settings: Settings,
    tmp_path: Path,
    unused_url: str,
    monkeypatch: pytest.MonkeyPatch,
    asked: dict[str, object],
    error: type[HomefeedError],
    told: str,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    asked = {**asked}
    if table := asked.pop("lost", ""):
        shutil.rmtree(tmp_path / "event_log" / str(table))
    if "tracking_uri" in asked:
        uri = asked.pop("tracking_uri") or unused_url
        settings = settings.model_copy(update={"tracking_uri": uri})
    with pytest.raises(error, match=told) as caught:
        start_run(request(**asked), settings)
    assert "secret" not in str(caught.value)
    run_uri = run_uri_of(request(**asked), settings)
    assert not storage.exists(manifest_uri(run_uri, "resolve_run"))
    assert not (tmp_path / "workspace" / "snapshots").exists()
    failure = storage.read_model(failure_uri(run_uri, "resolve_run"), StageFailure)
    assert failure.error_class == type(caught.value).__name__
    assert failure.exit_code == error.exit_code


@pytest.mark.parametrize("recipe", ["smoke", "smoke.yaml"])
def test_the_reference_is_the_newest_accepted_before(
    settings: Settings, tmp_path: Path, recipe: str
) -> None:
    """A mark that a writer has not finished, whose name begins with a full stop, is none."""
    (tmp_path / "smoke.yaml").write_text("extends: smoke\n")  # Another recipe, of the same name.
    reference = recipe if recipe == "smoke" else canonical(str(tmp_path / recipe))
    workspace_uri = storage.to_uri(tmp_path / "workspace")
    accepted = accepted_folder(workspace_uri, reference)
    storage.write_bytes(f"{accepted}/.2017-06-01--0123456789ab.json.{'0' * 32}", b'{"as_of":')
    first = start_run(request(recipe=reference, trigger="none"), settings)
    assert first.last_accepted_snapshot_uri is None
    for days in (-28, -14, 14):
        as_of = AS_OF + timedelta(days=days)
        uri = storage.join(workspace_uri, "snapshots", f"of{days}")
        storage.write_bytes(f"{uri}/manifest.json", b"{}")
        mark = JudgedSnapshot(as_of=as_of, snapshot_uri=uri, recipe=reference)
        storage.write_model(f"{accepted}/{as_of:%Y-%m-%d}--a.json", mark)
    run = start_run(request(recipe=reference), settings)
    assert run.last_accepted_snapshot_uri == storage.join(workspace_uri, "snapshots", "of-14")
