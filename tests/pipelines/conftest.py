"""Sets AIRFLOW_HOME before a test module imports Airflow; gives the tiny log, and a home."""

from pathlib import Path

import pytest

from support.airflow_home import use_temporary_airflow_home

use_temporary_airflow_home()

from support.tiny_log import write_tiny_log  # noqa: E402 - after AIRFLOW_HOME is set


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unused_url: str) -> Path:
    """The test's own folder as HOMEFEED_HOME; no MLflow answers."""
    monkeypatch.setenv("HOMEFEED_HOME", str(tmp_path))
    monkeypatch.setenv("HOMEFEED_TRACKING_URI", unused_url)
    return tmp_path


@pytest.fixture
def log(tmp_path: Path) -> Path:
    write_tiny_log(tmp_path / "event_log")
    return tmp_path / "event_log"
