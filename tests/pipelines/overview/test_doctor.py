"""What is wrong with a deployment is found before a cycle finds it, and no secret is shown."""

import http.server
import json
import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipelines import storage
from pipelines.contracts.errors import ConfigurationError
from pipelines.overview import doctor
from pipelines.overview.doctor import Diagnosis, lines_of
from support.worlds import write_planted_world

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def places(tmp_path: Path, unused_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("HOMEFEED_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOMEFEED_HOME", str(tmp_path))
    monkeypatch.setenv("HOMEFEED_TRACKING_URI", unused_url)
    monkeypatch.setenv("HOMEFEED_RECIPE", "smoke")


def wrong_of(found: Diagnosis) -> dict[str, str]:
    return {check.what: check.said for check in found.checks if not check.is_good}


@pytest.fixture
def airflow() -> Iterator[tuple[str, dict]]:
    """A server that answers as Airflow's health page does, and what it says."""
    told: dict = {"metadatabase": {"status": "healthy"}, "scheduler": {"status": "healthy"}}

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(told).encode())

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", told
        server.shutdown()


def test_what_a_cycle_would_refuse_is_said_with_what_to_change() -> None:
    found = doctor.diagnose(NOW)
    wrong = wrong_of(found)
    assert set(wrong) == {"event log", "MLflow answers"}
    assert "correct HOMEFEED_EVENT_LOG" in wrong["event log"]
    assert "correct HOMEFEED_TRACKING_URI" in wrong["MLflow answers"]
    assert found.wrong == tuple(wrong.values())
    lines = list(lines_of(found))
    assert [f"wrong: {each}" for each in found.wrong] == lines[-2:]
    assert any("the first cycle will make it" in line for line in lines)


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
    assert "scheduler is unhealthy" in wrong_of(doctor.diagnose(NOW))["Airflow answers"]
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
    assert shown in lines and "sEcReT" not in lines
    assert "sEcReT" not in found.model_dump_json()


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("RECIPE", "no_such_recipe", "recipe"),
        ("SCHEDULE_START", "Monday", "schedule"),
        ("WORKSPACE", "{home}/file/workspace", "workspace is writable"),
    ],
)
def test_each_check_finds_its_fault(
    tmp_path: Path, monkeypatch, name: str, value: str, what: str
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(f"HOMEFEED_{name}", value.format(home=tmp_path))
    wrong = wrong_of(doctor.diagnose(NOW))
    assert what in wrong and value.rpartition("/")[2] in wrong[what]


def test_where_the_settings_are_refused_the_rest_is_told(monkeypatch) -> None:
    monkeypatch.setenv("HOMEFEED_TRAKING_URI", "x")
    monkeypatch.setenv("HOMEFEED_RENDEZVOUS", "x")  # which is read elsewhere
    monkeypatch.setenv("HOMEFEED_CADENCE_DAYS", "-1")
    monkeypatch.setattr(doctor, "MIN_FREE_GIB", 1e9)
    found = doctor.diagnose(NOW)
    assert found.wrong[0].startswith("HOMEFEED_CADENCE_DAYS is '-1'")
    assert all("GiB are free at " in each for each in found.wrong[1:]) and found.wrong[1:]
    assert {check.what for check in found.checks} == {"room on the disk"}
    assert all(found.versions[name] for name in ("Python", "torch", "mlflow", "pyarrow"))
    [note] = [each for each in found.notes if "is no setting" in each]
    assert note.startswith("HOMEFEED_TRAKING_URI") and "HOMEFEED_TRACKING_URI is meant" in note


def test_a_store_is_written_to_and_left_as_it_was(s3_uri: str) -> None:
    assert doctor.try_writing(s3_uri) == "a file was written and deleted"
    assert storage.list_names(s3_uri) == []
