"""The compose file and its secrets: on this machine only, nothing guessable, all is checked."""

import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
ONCE = {"init", "ingest"}
"""Services that end."""


@pytest.fixture(scope="module")
def stack() -> dict[str, Any]:
    return yaml.safe_load((DOCKER / "compose.yaml").read_text())


def make_secrets(folder: Path, *options: str, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "docker/make_secrets.py", "--folder", str(folder), *options]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def test_every_page_is_bound_to_this_machine(stack: dict[str, Any]) -> None:
    ports = [port for service in stack["services"].values() for port in service.get("ports", ())]
    assert len(ports) == 3
    assert all(port.startswith("${HOMEFEED_BIND:-127.0.0.1}:") for port in ports)


def test_every_service_that_stays_is_checked_and_waited_for(stack: dict[str, Any]) -> None:
    services = stack["services"]
    for name, service in services.items():
        assert ("healthcheck" in service) == (name not in ONCE), name
    waited = [
        (other, service["depends_on"][other]["condition"])
        for service in services.values()
        for other in service.get("depends_on", {})
    ]
    assert waited
    for other, condition in waited:
        expected = "service_completed_successfully" if other in ONCE else "service_healthy"
        assert condition == expected, other


def test_our_services_cannot_write_into_their_image_nor_gain_rights(stack: dict[str, Any]) -> None:
    for name, service in stack["services"].items():
        assert service["read_only"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        # PostgreSQL and Redis begin as root and change to their user; the store's user is its own.
        assert name in ("postgres", "redis", "s3") or service["cap_drop"] == ["ALL"], name


def test_no_value_in_the_file_is_a_secret(stack: dict[str, Any]) -> None:
    for service in stack["services"].values():
        for name, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|KEY|CONN|URL_CMD|BACKEND", name):
                assert str(value).startswith(("cat /run/secrets/", "/run/secrets/")), name


def test_each_secret_that_is_used_is_written_and_each_differs(
    stack: dict[str, Any], tmp_path: Path
) -> None:
    used = {
        secret["source"] if isinstance(secret, dict) else secret
        for service in stack["services"].values()
        for secret in service.get("secrets", ())
    }
    assert used == stack["secrets"].keys()
    done = make_secrets(tmp_path / "secrets", "--local-s3")
    assert done.returncode == 0, done.stderr
    files = {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}
    assert used <= files.keys()
    assert len(set(files.values())) == len(files)
    assert all(len(text) >= 40 for text in files.values())
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700


def test_secrets_that_are_there_stay_and_what_is_missing_is_made(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    make_secrets(folder, "--local-s3")
    before = {path.name: path.read_text() for path in folder.iterdir()}
    (folder / "jwt_secret").unlink()
    done = make_secrets(folder, "--local-s3")
    assert done.stdout.split() == [str(folder / "jwt_secret")]
    after = {path.name: path.read_text() for path in folder.iterdir()}
    assert {name for name in before if before[name] != after[name]} == {"jwt_secret"}
    assert before["airflow_database_password"] in after["airflow_database_url"]


def test_the_keys_of_a_bucket_come_from_the_environment(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    refused = make_secrets(folder, AWS_ACCESS_KEY_ID="key")
    assert refused.returncode != 0
    assert "AWS_SECRET_ACCESS_KEY is not set; expected" in refused.stderr
    assert not (folder / "aws_credentials").exists()
    make_secrets(folder, AWS_ACCESS_KEY_ID="key", AWS_SECRET_ACCESS_KEY="its-secret")
    lines = (folder / "aws_credentials").read_text().splitlines()
    assert lines == [
        "[default]",
        "aws_access_key_id = key",
        "aws_secret_access_key = its-secret",
    ]


def test_a_token_is_written_and_other_keys_than_those_on_file_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "its-secret"}
    make_secrets(folder, **keys, AWS_SESSION_TOKEN="for-an-hour")
    assert "aws_session_token = for-an-hour" in (folder / "aws_credentials").read_text()
    assert make_secrets(folder, **keys).returncode == 0
    refused = make_secrets(folder, **(keys | {"AWS_ACCESS_KEY_ID": "another"}))
    assert refused.returncode != 0
    assert "holds the access key 'key', and AWS_ACCESS_KEY_ID is 'another'" in refused.stderr
    assert "delete it" in refused.stderr and "its-secret" not in refused.stderr


def test_what_compose_asks_for_is_told_in_a_file_that_it_reads(stack: dict[str, Any]) -> None:
    lines = (DOCKER / "local-s3.env").read_text().splitlines()
    told = dict(line.split("=", 1) for line in lines if line and line[0] != "#")
    asked = set(re.findall(r"\$\{(\w+)", (DOCKER / "compose.yaml").read_text()))
    asked |= {name for name, value in stack["x-store"].items() if value is None}
    assert told.keys() <= asked | {"COMPOSE_PROFILES"}
    assert told["AWS_ENDPOINT_URL"] == "http://s3:8000"
    assert stack["services"]["s3"]["profiles"] == [told["COMPOSE_PROFILES"]]
