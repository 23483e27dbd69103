"""The local home: secrets are for one person only, odd paths do no harm, ports stay the same."""

import socket
import stat
from configparser import ConfigParser
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from pipelines.contracts.errors import ConfigurationError
from pipelines.local.home import (
    LocalHome,
    Ports,
    choose_port,
    choose_ports,
    write_airflow_config,
)


@pytest.fixture
def home(tmp_path: Path) -> LocalHome:
    home = LocalHome(tmp_path / "100% #1")
    home.create()
    return home


def test_the_password_is_random_and_kept(home: LocalHome, tmp_path) -> None:
    other = LocalHome(tmp_path / "b")
    other.create()
    assert home.password() == home.password() != other.password() and len(home.password()) >= 20


def test_the_configuration_is_for_this_user_and_this_machine_only(home: LocalHome) -> None:
    write_airflow_config(home, home.path / "dags%", 8123)
    path = home.airflow / "airflow.cfg"
    text = path.read_text()
    write_airflow_config(home, home.path / "dags%", 8123)
    assert path.read_text() == text  # secrets outlive a restart
    assert home.password() not in text
    found = ConfigParser()
    found.read(path)
    assert (found["api"]["host"], found["core"]["load_examples"]) == ("127.0.0.1", "False")
    # A percent sign in a path reaches Airflow as it is.
    assert make_url(found["database"]["sql_alchemy_conn"]).database == str(home.airflow_database)
    assert found["core"]["dags_folder"] == str(home.path / "dags%")
    assert found["core"]["simple_auth_manager_passwords_file"] == str(home.passwords)
    assert found["logging"]["base_log_folder"] == str(home.logs / "tasks")


def test_what_the_services_write_is_for_this_user_only(home: LocalHome) -> None:
    home.logs.chmod(0o755)  # as somebody left it
    home.create()
    folders = (home.airflow, home.mlflow, home.logs)
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in folders} == {0o700}
    inside = (home.airflow_database, home.passwords, home.mlflow_database)
    assert {path.parent for path in inside} == {home.airflow, home.mlflow}


@pytest.mark.parametrize("name", ["what?", "$HOME", "two\nlines", "a%2Fb"])
def test_a_path_that_a_service_would_misread_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="(?s)the home folder is .*; expected a path"):
        LocalHome(tmp_path / name).create()
    assert list(tmp_path.iterdir()) == []


def test_the_ports_of_the_first_start_are_kept_for_when_nobody_else_has_them(
    home: LocalHome, caplog: pytest.LogCaptureFixture
) -> None:
    first = choose_ports(home)
    assert choose_ports(home) == first and caplog.text == ""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        first = Ports(airflow=choose_port(0), mlflow=port)
        home.ports.write_bytes(first.to_record())
        assert (
            choose_ports(home).mlflow != port and f"port {first.airflow} or {port}" in caplog.text
        )
    assert choose_ports(home) == first
