"""Keeps Airflow's files of a test process away from the user's own AIRFLOW_HOME."""

import atexit
import os
import shutil
import tempfile


def use_temporary_airflow_home() -> None:
    """Set AIRFLOW_HOME unless it is set; to be called before Airflow is imported."""
    if "AIRFLOW_HOME" not in os.environ:
        folder = tempfile.mkdtemp(prefix="homefeed-airflow-")
        os.environ["AIRFLOW_HOME"] = folder
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
