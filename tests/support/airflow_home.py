"""Keeps Airflow's files of a test process away from the user's own AIRFLOW_HOME."""

import os
import tempfile


def use_temporary_airflow_home() -> None:
    """Set AIRFLOW_HOME unless it is set; to be called before Airflow is imported."""
    os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="homefeed-airflow-"))
