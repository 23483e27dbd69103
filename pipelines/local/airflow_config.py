"""The airflow.cfg of the local services: small, on 127.0.0.1, with its own secrets.

Not a deployment's configuration: SQLite and one admin user are for one machine and one person.
"""

import configparser
import os
from pathlib import Path

from pipelines.local.layout import ADMIN, LocalHome


def write_airflow_config(home: LocalHome, dags: Path, port: int) -> None:
    """Write `<home>/airflow/airflow.cfg` (mode 0600), with secrets that outlive a restart.

    Args:
        home: where everything lies.
        dags: folder with the DAG file.
        port: of the api-server; it changes when the usual one is taken.
    """
    parser = configparser.RawConfigParser()
    parser.read_dict({**_core(home, dags, port), **_scheduling()})
    path = home.airflow / "airflow.cfg"
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as stream:
        parser.write(stream)


def _core(home: LocalHome, dags: Path, port: int) -> dict[str, dict[str, object]]:
    url = f"http://127.0.0.1:{port}"
    return {
        "core": {
            "dags_folder": dags,
            "executor": "LocalExecutor",
            # A cycle runs two tasks at most at a time; each slot is a waiting process.
            "parallelism": 4,
            "load_examples": False,
            "simple_auth_manager_users": f"{ADMIN}:admin",
            "simple_auth_manager_passwords_file": home.passwords,
            "fernet_key": _fernet_key(home),
            "execution_api_server_url": f"{url}/execution/",
        },
        "database": {"sql_alchemy_conn": f"sqlite:///{home.airflow / 'airflow.db'}"},
        "api": {
            "host": "127.0.0.1",
            "port": port,
            "base_url": url,
            "workers": 1,
            "secret_key": home.secret("secrets.json", "api_secret_key"),
        },
        "api_auth": {"jwt_secret": home.secret("secrets.json", "jwt_secret")},
        "logging": {"base_log_folder": home.logs / "tasks"},
        "usage_data_collection": {"enabled": False},
    }


def _scheduling() -> dict[str, dict[str, object]]:
    return {
        "scheduler": {
            # At the default of 1 s every hop from task to task costs about a second.
            "scheduler_idle_sleep_time": 0.1,
            "enable_health_check": False,
            # A killed worker is noticed within a minute, and what a former start left sooner.
            "task_instance_heartbeat_timeout": 45,
            "task_instance_heartbeat_timeout_detection_interval": 5,
            "orphaned_tasks_check_interval": 20,
        },
        "dag_processor": {
            "parsing_processes": 1,
            "min_file_process_interval": 60,
            "refresh_interval": 30,
        },
    }


def _fernet_key(home: LocalHome) -> str:
    """Return the key that encrypts connections in the database: 32 bytes in URL-safe base64."""
    import base64
    import hashlib

    seed = home.secret("secrets.json", "fernet_seed")
    return base64.urlsafe_b64encode(hashlib.sha256(seed.encode()).digest()).decode()
