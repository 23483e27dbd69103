"""What is wrong with a deployment is found before a cycle finds it, and no secret is shown."""

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipelines import storage
from pipelines.contracts.errors import ConfigurationError
from pipelines.overview import doctor
from pipelines.overview.doctor import lines_of
from support.serving import Handler, http_server
from support.worlds import write_planted_world

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def places(tmp_path: Path, unused_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("HOMEFEED_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOMEFEED_HOME", str(tmp_path))
    monkeypatch.setenv("HOMEFEED_TRACKING_URI", unused_url)
    monkeypatch.setenv("HOMEFEED_RECIPE", "smoke")


@pytest.fixture
def airflow() -> Iterator[tuple[str, dict]]:
    """A server that answers as Airflow's health page does, and what it says."""
    told: dict = {"metadatabase": {"status": "healthy"}, "scheduler": {"status": "healthy"}}

    def say(handler: Handler) -> None:
        handler.answer(200, json.dumps(told).encode())

    with http_server(Handler, do_GET=say) as url:
        yield url, told


def test_what_a_cycle_would_refuse_is_said_with_what_to_change(tmp_path: Path) -> None:
    found = doctor.diagnose(NOW)
    for said, wanted in zip(found.wrong, ("EVENT_LOG", "TRACKING_URI"), strict=True):
        assert f"correct HOMEFEED_{wanted}" in said
    lines = list(lines_of(found))
    assert [f"wrong: {each}" for each in found.wrong] == lines[-2:]
    workspace_uri = storage.to_uri(tmp_path / "workspace")
    assert f"asked: workspace is writable ({workspace_uri})" in lines


@pytest.mark.services
def test_a_sound_deployment_has_nothing_wrong(
    tmp_path: Path, tracking_uri: str, unused_url: str, airflow: tuple[str, dict], monkeypatch
) -> None:
    write_planted_world(tmp_path / "event_log")
    url, told = airflow
    monkeypatch.setenv("HOMEFEED_AIRFLOW_URL", url)
    monkeypatch.setenv("HOMEFEED_TRACKING_URI", tracking_uri)
    monkeypatch.setenv("HOMEFEED_REGISTERED_MODEL", f"doctor_{tmp_path.name}")
    found = doctor.diagnose(NOW)
    assert found.wrong == (), found.wrong
    assert list(lines_of(found))[-1] == "nothing is wrong"
    assert not (tmp_path / "workspace").exists()
    told["scheduler"]["status"] = "unhealthy"
    [said] = doctor.diagnose(NOW).wrong
    assert "is not well" in said and "'scheduler': 'unhealthy'" in said
    told.clear()
    with pytest.raises(ConfigurationError, match="is not well"):
        doctor.ask_airflow(url)
    with pytest.raises(ConfigurationError, match=r"no Airflow answers at http://\*\*\*@127"):
        doctor.ask_airflow(unused_url.replace("//", "//me:hidden@"))


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("SPARK_OPTIONS", '{"a.secret.key": "sEcReT"}', "HOMEFEED_SPARK_OPTIONS"),
        ("SPARK_OPTIONS", '{"a.secret.key": "sEcReT"', '"spark_options"'),
        ("TRACKING_URI", "http://me:sEcReT@host", "http://***@host"),
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
        ("RECIPE", "no_such_recipe", "unknown recipe 'no_such_recipe'"),
        ("SCHEDULE_START", "Monday", "HOMEFEED_SCHEDULE_START is 'Monday'"),
        ("WORKSPACE", "{home}/file/workspace", "/file is a file; expected a folder"),
    ],
)
def test_each_question_finds_its_fault(
    tmp_path: Path, monkeypatch, name: str, value: str, said: str
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(f"HOMEFEED_{name}", value.format(home=tmp_path))
    assert said in doctor.diagnose(NOW).wrong[0]


def test_where_the_settings_are_refused_nothing_else_is_asked(monkeypatch) -> None:
    monkeypatch.setenv("HOMEFEED_CADENCE_DAYS", "-1")
    found = doctor.diagnose(NOW)
    [said] = found.wrong
    assert said.startswith("HOMEFEED_CADENCE_DAYS is '-1'") and found.asked == ("settings",)


def test_a_store_is_written_to_and_left_as_it_was(s3_uri: str) -> None:
    doctor.try_writing(s3_uri)
    assert storage.list_names(s3_uri) == []
