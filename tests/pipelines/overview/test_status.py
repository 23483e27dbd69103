"""How a deployment is doing: what is there is told, whatever else cannot be reached."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest import mock

import pytest

from pipelines import deletion, storage
from pipelines.alerts.compose import Ended, compose_failure
from pipelines.alerts.incidents import tell, tell_recovered
from pipelines.alerts.links import ACCOUNT
from pipelines.alerts.transports import AlertDeliveryError, deliver, entry_uri
from pipelines.contracts.alert import Alert
from pipelines.contracts.artifacts import ResolvedRun
from pipelines.contracts.errors import ConfigurationError, TrackingUnavailableError
from pipelines.overview.status import Status, addresses_of, lines_of, read_status
from pipelines.registry import tracking
from pipelines.settings import Settings
from support.kept_cycles import end, failure_of
from support.registered import promote_bundle
from support.runs import make_run, save_run

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def settings(tmp_path: Path, unused_url: str) -> Settings:
    return Settings(home=str(tmp_path), tracking_uri=unused_url, registered_model="test_ranker")


def look(settings: Settings) -> tuple[Status, list[type[Exception]], str]:
    status, errors = read_status(settings, NOW, 5)
    return status, [type(error) for error in errors], "\n".join(lines_of(status))


def broken(run: ResolvedRun, settings: Settings) -> Alert:
    """Return the alert about a cycle whose data gate refused its snapshot."""
    failure = failure_of(run, "check_snapshot", "DataGateFailedError")
    return compose_failure(failure, run, settings, Ended(failure.stage))


def test_a_workspace_with_nothing_is_none_yet(settings: Settings, s3_uri: str) -> None:
    status, errors, said = look(settings.model_copy(update={"workspace": s3_uri}))
    assert errors == [TrackingUnavailableError]
    assert (status.num_cycles, status.cycles, status.alerts) == (0, (), ())
    assert f"\ncycles of workspace {status.workspace_uri}: 0" in said
    assert said.startswith("champion: none in the history; MLflow could not be asked\n")
    assert status.next_due == datetime(2026, 3, 2, 6, tzinfo=UTC)
    assert "\nnext due: 2026-03-02 06:00 UTC, where" in said
    assert status.addresses["Workspace"] == status.workspace_uri == s3_uri


def test_an_alert_names_the_transports_that_lack_it(
    settings: Settings, tmp_path: Path, monkeypatch
) -> None:
    there = settings.model_copy(update={"alert_transports": ("outbox", "slack")})
    alert = broken(save_run(make_run(tmp_path)), settings)
    down = mock.Mock(side_effect=AlertDeliveryError("down"))
    monkeypatch.setattr("pipelines.alerts.transports._TRANSPORTS", {"slack": down, "outbox": down})
    with pytest.raises(AlertDeliveryError):
        deliver(alert, there)
    status, _, said = look(there)
    [found] = status.alerts
    assert (found.waiting_for, found.delivered_to) == (("slack",), ("outbox",))
    assert f"{alert.title}; waits for slack" in said
    deliver(alert.model_copy(update={"run_id": "another"}), there, is_counted=True)
    storage.write_bytes(entry_uri(alert, there), b"{")
    [newest] = look(there)[0].alerts  # The other one is damaged, which is logged.
    assert newest.waiting_for == (), "it was only counted"


def test_what_is_broken_stands_there_until_a_cycle_has_mended_it(
    settings: Settings, tmp_path: Path
) -> None:
    run = save_run(make_run(tmp_path, as_of=NOW - timedelta(days=20)))
    tell(broken(run, settings), settings)
    status, _, said = look(settings)
    [sentence] = status.broken
    title = f"Homefeed retrain {run.as_of:%Y-%m-%d}: check_snapshot broke"
    assert sentence.endswith(f" UTC, times met: 1: {title}") and f"\n  {sentence}" in said
    end(run)
    tell_recovered(run.run_uri, settings)
    assert look(settings)[0].broken == ()


def test_a_bad_schedule_hides_nothing_else(settings: Settings, tmp_path: Path) -> None:
    end(make_run(tmp_path))
    status, errors, said = look(settings.model_copy(update={"schedule_start": "Monday"}))
    assert status.next_due is None and len(status.cycles) == 1
    assert ": 1, the newest first\n2017-03-02  void: " in said
    assert errors == [ConfigurationError, TrackingUnavailableError]
    assert "\nnot found out: MLflow at" in said


@pytest.mark.services
def test_the_champion_is_the_registrys_or_the_historys_where_that_is_out_of_reach(
    tmp_path: Path, tracking_uri: str, settings: Settings
) -> None:
    name = f"status_{tmp_path.name}"
    there = settings.model_copy(update={"tracking_uri": tracking_uri, "registered_model": name})
    _, errors, said = look(there)
    assert errors == [] and said.startswith("champion: none yet\n")
    client = tracking.connect(tracking_uri)
    places = {"tracking_uri": tracking_uri, "registered_model": name, "experiment": name}
    run = make_run(tmp_path, as_of=NOW - timedelta(days=20), **places)
    promote_bundle(client, run, tmp_path, NOW - timedelta(days=19))
    served = f"champion: {name} v1, as_of 2026-02-09, serves since 2026-02-10 00:00 UTC"
    status, errors, said = look(there)
    assert errors == [] and said.startswith(f"{served}\n") and status.champion.is_confirmed
    _, errors, said = look(there.model_copy(update={"tracking_uri": settings.tracking_uri}))
    assert errors == [TrackingUnavailableError]
    assert said.startswith(f"{served}; MLflow could not be asked\n")
    client.delete_registered_model_alias(name, "champion")
    _, errors, said = look(there)
    assert errors == [] and said.startswith("champion: none yet\n  the registry says"), said
    client.set_registered_model_alias(name, "champion", "1")
    deletion.remove(f"{run.workspace_uri}/history")
    status, errors, said = look(there)
    assert errors == [] and status.champion.model is not None
    assert "v1 serves, and the history that no" in said.splitlines()[1]


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://127.0.0.1:5000/a?b#c", "http://127.0.0.1:5000/a?b#c"),
        ("https://me:secret@host:5000/x", "https://***@host:5000/x"),
        ("https://token@host", "https://***@host"),
        ("http://me:secret@[broken", "http://***@[broken"),
        ("http://me:sec/ret@host", "http://***@host"),
        ("('http://me:secret@host', 1)", "('http://***@host', 1)"),
        ("file:///a@b/c", "file:///a@b/c"),
    ],
)
def test_user_and_password_are_left_out(address: str, shown: str) -> None:
    assert ACCOUNT.sub("***@", address) == shown
    account = "https://me:secret@host"
    found = addresses_of(Settings(tracking_uri=account, airflow_url=account))
    assert found["Airflow"] == "https://host/dags/homefeed_retrain"
    listed = "experiments?workflowType=machine_learning"
    assert found["MLflow"] == f"https://***@host/#/{listed}"
    assert "secret" not in str(found)
