"""Sets AIRFLOW_HOME before a test module imports Airflow; and gives the tiny log."""

from pathlib import Path

import pytest

from support.airflow_home import use_temporary_airflow_home

use_temporary_airflow_home()

from support.tiny_log import write_tiny_log  # noqa: E402 - after AIRFLOW_HOME is set


@pytest.fixture
def log(tmp_path: Path) -> Path:
    write_tiny_log(tmp_path / "event_log")
    return tmp_path / "event_log"
