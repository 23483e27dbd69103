"""The compose file and its secrets: on this machine only, nothing guessable, all is checked."""

import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from airflow.configuration import conf

from pipelines.local.services import PATIENCE
from pipelines.stages.runner import WAIT_S

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
COMPOSE = (DOCKER / "compose.yaml").read_text()
STACK = yaml.safe_load(COMPOSE)
SERVICES = STACK["services"]
ONCE = {"init", "ingest"}
"""Services that end."""
MOST = "AIRFLOW__WORKERS__MAX_FAILED_HEARTBEATS"
LOST_AFTER_NAME = "task_instance_heartbeat_timeout"
LOST_AFTER = f"AIRFLOW__SCHEDULER__{LOST_AFTER_NAME.upper()}"
OF_BUCKET = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "its-secret"}


def make_secrets(folder: Path, *options: str, **environment: str) -> tuple[int, str]:
    """Return the exit code, and what was said."""
    command = [sys.executable, "docker/make_secrets.py", "--folder", str(folder), *options]
    told = {"cwd": ROOT, "env": environment, "capture_output": True, "text": True}
    done = subprocess.run(command, check=False, **told)
    return done.returncode, done.stdout + done.stderr


def test_every_page_is_bound_to_this_machine() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert len(ports) == 4
    assert all(port.startswith("${HOMEFEED_BIND:-127.0.0.1}:") for port in ports)


@pytest.mark.parametrize("name", SERVICES)
def test_no_service_can_gain_rights_and_each_that_stays_is_checked_and_waited_for(name) -> None:
    service = SERVICES[name]
    assert service["read_only"] and service["security_opt"] == ["no-new-privileges:true"]
    # PostgreSQL and Redis begin as root and change to their user; the store's user is its own.
    assert name in ("postgres", "redis", "s3") or service["cap_drop"] == ["ALL"]
    assert ("healthcheck" in service) == (name not in ONCE)
    assert ("depends_on" in service) == (name not in ("postgres", "redis", "s3", "ingest"))
    for other, how in service.get("depends_on", {}).items():
        expected = "service_completed_successfully" if other in ONCE else "service_healthy"
        assert how["condition"] == expected, other


def test_no_worker_gives_up_before_the_scheduler_does_while_no_api_server_answers() -> None:
    values = yaml.safe_load((DOCKER / "kubernetes" / "values.yaml").read_text())
    chart = {each["name"]: each["value"] for each in values["env"]}
    for told in (SERVICES["worker"]["environment"], chart, PATIENCE):
        lost_after_s = int(told.get(LOST_AFTER, conf.getint("scheduler", LOST_AFTER_NAME)))
        least_s = int(told[MOST]) * conf.getint("workers", "min_heartbeat_interval")
        assert least_s >= lost_after_s > 60
        # An attempt waits longer for one that slept than the scheduler takes to end that.
        assert WAIT_S >= 2 * lost_after_s
    assert values["apiServer"]["replicas"] == 2
    second = SERVICES["api-server-2"]
    assert second["networks"]["default"]["aliases"] == ["api-server"]
    assert second["command"] == SERVICES["api-server"]["command"]


def test_a_worker_which_runs_the_code_of_recipes_has_no_key_of_airflow_s() -> None:
    kept = {"/run/secrets/celery_broker_url", "/run/secrets/aws_credentials"}
    told = "\n".join(map(str, SERVICES["worker"]["environment"].values()))
    assert set(re.findall(r"/run/secrets/\w+", told)) == kept
    given = [
        each if isinstance(each, str) else each["source"] for each in SERVICES["worker"]["secrets"]
    ]
    assert given == ["celery_broker_url", "aws_credentials", "mlflow_credentials"]
    assert SERVICES["worker"]["command"][-1] == "--skip-serve-logs"


def test_each_secret_is_written_and_differs_and_none_stands_in_the_file(tmp_path: Path) -> None:
    used = set()
    for service in SERVICES.values():
        given = service.get("secrets", ())
        used |= {each if isinstance(each, str) else each["source"] for each in given}
        for name, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|KEY|CONN|URL_CMD|BACKEND", name):
                assert str(value).startswith(("cat /run/secrets/", "/run/secrets/")), name
    assert used == STACK["secrets"].keys()
    folder = tmp_path / "secrets"
    assert make_secrets(folder, "--local-s3")[0] == 0
    files = {path.name: path.read_text() for path in folder.iterdir()}
    assert used <= files.keys() and len(set(files.values())) == len(files)
    assert all(len(text) >= 40 for text in files.values())
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    # What is there stays, and what is missing is made.
    (folder / "jwt_secret").unlink()
    assert make_secrets(folder, "--local-s3") == (0, f"{folder / 'jwt_secret'}\n")
    assert [name for name in files if files[name] != (folder / name).read_text()] == ["jwt_secret"]
    assert files["airflow_database_password"] in files["airflow_database_url"]


def test_the_keys_of_a_bucket_come_from_the_environment_and_stay(tmp_path: Path) -> None:
    kept = tmp_path / "secrets" / "aws_credentials"
    code, said = make_secrets(kept.parent, AWS_ACCESS_KEY_ID="key")
    assert code != 0 and not kept.exists()
    assert "AWS_SECRET_ACCESS_KEY is not set; expected" in said
    make_secrets(kept.parent, **OF_BUCKET)
    lines = ["[default]", "aws_access_key_id = key", "aws_secret_access_key = its-secret"]
    assert kept.read_text().splitlines() == lines
    kept.unlink()
    make_secrets(kept.parent, **OF_BUCKET, AWS_SESSION_TOKEN="for-an-hour")
    assert "aws_session_token = for-an-hour" in kept.read_text()
    assert make_secrets(kept.parent, **OF_BUCKET)[0] == 0
    code, said = make_secrets(kept.parent, **(OF_BUCKET | {"AWS_ACCESS_KEY_ID": "another"}))
    assert code != 0 and "delete it" in said and "its-secret" not in said
    assert "holds the access key 'key', and AWS_ACCESS_KEY_ID is 'another'" in said


def test_what_compose_asks_for_is_told_in_a_file_that_it_reads() -> None:
    lines = (DOCKER / "local-s3.env").read_text().splitlines()
    told = dict(line.split("=", 1) for line in lines if line and line[0] != "#")
    asked = set(re.findall(r"\$\{(\w+)", COMPOSE))
    asked |= {name for name, value in STACK["x-store"].items() if value is None}
    assert told.keys() <= asked | {"COMPOSE_PROFILES"}
    assert told["AWS_ENDPOINT_URL"] == "http://s3:8000"
    assert SERVICES["s3"]["profiles"] == [told["COMPOSE_PROFILES"]]
