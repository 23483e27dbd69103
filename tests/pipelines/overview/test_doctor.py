"""What is wrong with a deployment is found before a cycle finds it, and no secret is shown."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from unittest import mock

import pytest

from pipelines import storage
from pipelines.contracts.errors import ConfigurationError, TransientStorageError
from pipelines.overview import doctor
from pipelines.overview.doctor import lines_of
from support.answers import server_that_answers
from support.damage import flip_a_byte
from support.desk import Desk
from support.worlds import write_planted_world

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def places(tmp_path: Path, unused_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("HOMEFEED_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOMEFEED_HOME", str(tmp_path))
    monkeypatch.setenv("HOMEFEED_TRACKING_URI", unused_url)
    monkeypatch.setenv("HOMEFEED_RECIPE", "smoke")


def test_what_a_cycle_would_refuse_is_said_with_what_to_change() -> None:
    found = doctor.diagnose(NOW)
    for said, wanted in zip(found.wrong, ("EVENT_LOG", "TRACKING_URI"), strict=True):
        assert f"correct HOMEFEED_{wanted}" in said
    lines = list(lines_of(found))
    assert [f"wrong: {each}" for each in found.wrong] == lines[-2:]


@pytest.mark.services
def test_a_sound_deployment_has_nothing_wrong(
    tmp_path: Path, tracking_uri: str, unused_url: str, monkeypatch
) -> None:
    write_planted_world(tmp_path / "event_log")
    monkeypatch.setenv("HOMEFEED_TRACKING_URI", tracking_uri)
    monkeypatch.setenv("HOMEFEED_REGISTERED_MODEL", f"doctor_{tmp_path.name}")
    for parts in ({"scheduler": "healthy"}, {"scheduler": "unhealthy"}, {}):
        told = {name: {"status": status} for name, status in parts.items()}
        with server_that_answers(200, json.dumps(told).encode()) as url:
            monkeypatch.setenv("HOMEFEED_AIRFLOW_URL", url)
            [last] = list(lines_of(doctor.diagnose(NOW)))[1:]
        is_well = parts.get("scheduler") == "healthy"
        assert ("nothing is wrong" if is_well else f"is not well: found {parts} at") in last
    assert not (tmp_path / "workspace").exists()
    with pytest.raises(ConfigurationError, match=r"Airflow at http://\*\*\*@127.* found Conn"):
        doctor.ask_airflow(unused_url.replace("//", "//me:hidden@"))


@pytest.mark.services
def test_what_serves_is_compared_with_what_was_registered(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, tracking_uri: str, monkeypatch
) -> None:
    desk = Desk(tmp_path, tracking_uri)
    write_planted_world(desk.folder / "event_log")
    monkeypatch.setenv("HOMEFEED_HOME", str(desk.folder))
    monkeypatch.setenv("HOMEFEED_TRACKING_URI", desk.client.tracking_uri)
    monkeypatch.setenv("HOMEFEED_REGISTERED_MODEL", desk.name)
    desk.promote(desk.cycle(0))
    assert not any("bundle" in each for each in doctor.diagnose(NOW).wrong)
    *_, number, _, _ = desk.client.get_model_version(desk.name, "1").source.split("/")
    of_server = tmp_path_factory.getbasetemp().glob(f"mlflow*/**/{number}/**/*.safetensors")
    flip_a_byte(next(of_server))
    [said] = [each for each in doctor.diagnose(NOW).wrong if "bundle" in each]
    assert "altered after registration" in said


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("SPARK_OPTIONS", '{"a.secret.key": "sEcReT"}', "HOMEFEED_SPARK_OPTIONS"),
        ("SPARK_OPTIONS", '{"a.secret.key": "sEcReT"', '"spark_options"'),
        ("TRACKING_URI", "http://me:sEcReT@host", "MLFLOW_TRACKING_PASSWORD"),
        ("AIRFLOW_URL", "http://me:sEcReT@127.0.0.1:9", "http://***@127.0.0.1:9"),
    ],
)
def test_no_secret_is_shown(name: str, value: str, shown: str, monkeypatch) -> None:
    monkeypatch.setenv(f"HOMEFEED_{name}", value)
    found = doctor.diagnose(NOW)
    lines = "\n".join(lines_of(found))
    assert shown in lines and "sEcReT" not in lines + found.model_dump_json()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("CADENCE_DAYS", "-1", "HOMEFEED_CADENCE_DAYS is '-1'"),
        ("RECIPE", "no_such_recipe", "unknown recipe 'no_such_recipe'"),
        ("SCHEDULE_START", "Monday", "HOMEFEED_SCHEDULE_START is 'Monday'"),
        ("WORKSPACE", "{home}/file/workspace", "/file to be a folder that this user may write to"),
    ],
)
def test_each_question_finds_its_fault(
    tmp_path: Path, monkeypatch, name: str, value: str, said: str
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(f"HOMEFEED_{name}", value.format(home=tmp_path))
    assert said in doctor.diagnose(NOW).wrong[0]


def test_a_question_that_fails_hides_no_other(monkeypatch) -> None:
    failing = mock.Mock(side_effect=TransientStorageError("the bucket is away"))
    monkeypatch.setattr("pipelines.preconditions.cycle.look_at", failing)
    bucket, server = doctor.diagnose(NOW).wrong
    assert bucket == "the bucket is away" and "HOMEFEED_TRACKING_URI" in server


def test_a_store_is_written_to_and_left_as_it_was(s3_uri: str) -> None:
    doctor.try_writing(s3_uri)
    assert storage.list_names(s3_uri) == []
