"""The local home: secrets are for one person only, odd paths do no harm, ports stay the same."""

import socket
import stat
from configparser import ConfigParser

import pytest
from sqlalchemy.engine import make_url

from pipelines.contracts.errors import ConfigurationError
from pipelines.local.home import (
    LocalHome,
    Ports,
    choose_port,
    claim_port,
    claim_ports,
    default_home,
    last_ports,
    write_airflow_config,
)


def mode(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_password_is_random_kept_and_for_this_user_only(tmp_path):
    first, second = LocalHome(tmp_path / "a"), LocalHome(tmp_path / "b")
    for home in (first, second):
        home.create()
    assert first.password() == first.password() != second.password()
    assert len(first.password()) >= 20
    assert mode(first.passwords) == 0o600 and mode(first.airflow) == 0o700


def test_the_configuration_is_for_this_user_and_this_machine_only(tmp_path):
    home = LocalHome(tmp_path / "home")
    home.create()
    write_airflow_config(home, tmp_path / "dags", 8123)
    path = home.airflow / "airflow.cfg"
    text = path.read_text()
    write_airflow_config(home, tmp_path / "dags", 8123)
    assert path.read_text() == text  # secrets outlive a restart
    assert mode(path) == 0o600
    assert "host = 127.0.0.1" in text and "load_examples = False" in text
    assert home.password() not in text


def test_databases_logs_and_their_folders_are_for_this_user_only(tmp_path):
    home = LocalHome(tmp_path / "home")
    home.create()
    for path in (home.airflow_database, home.mlflow_database):
        path.with_name(f"{path.name}-wal").touch(mode=0o644)
        path.chmod(0o644)  # as an earlier version left it
    home.logs.chmod(0o755)
    home.create()
    assert {mode(folder) for folder in (home.airflow, home.mlflow, home.logs)} == {0o700}
    files = [*home.airflow.iterdir(), *home.mlflow.iterdir()]
    assert len(files) == 4 and {mode(path) for path in files} == {0o600}


@pytest.mark.parametrize("name", ["what?", "$HOME", "two\nlines", "a%2Fb"])
def test_a_path_that_a_service_would_misread_is_refused(tmp_path, name):
    with pytest.raises(ConfigurationError, match="in its path; expected no"):
        LocalHome(tmp_path / name).create()
    assert list(tmp_path.iterdir()) == []


def test_a_percent_sign_in_a_path_reaches_airflow_as_it_is(tmp_path):
    home = LocalHome(tmp_path / "100% #1")
    home.create()
    write_airflow_config(home, tmp_path / "dags%", 8123)
    found = ConfigParser()
    found.read(home.airflow / "airflow.cfg")
    assert make_url(found["database"]["sql_alchemy_conn"]).database == str(home.airflow_database)
    assert found["core"]["dags_folder"] == str(tmp_path / "dags%")
    assert found["core"]["simple_auth_manager_passwords_file"] == str(home.passwords)
    assert found["logging"]["base_log_folder"] == str(home.logs / "tasks")


def test_an_empty_home_is_the_usual_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HOMEFEED_HOME", raising=False)
    usual = default_home()
    assert usual.path == tmp_path / ".homefeed"
    monkeypatch.setenv("HOMEFEED_HOME", "")
    assert default_home() == usual
    monkeypatch.setenv("HOMEFEED_HOME", "elsewhere")
    assert default_home().path == tmp_path / "elsewhere"


def test_a_taken_port_is_replaced(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        other = choose_port(port)
        assert other != port
        assert choose_port(other) == other
    assert choose_port(port) == port


def test_a_port_that_another_start_has_chosen_is_not_chosen_again(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    wanted = choose_port(0)
    with claim_port(wanted) as first, claim_port(wanted) as second:
        assert choose_port(wanted) == wanted  # no server listens yet
        assert first == wanted != second
    with claim_port(wanted) as again:
        assert again == wanted


@pytest.fixture
def home(tmp_path, monkeypatch) -> LocalHome:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    home = LocalHome(tmp_path / "home")
    home.create()
    return home


def test_the_ports_of_a_start_are_those_of_the_next_one(home):
    assert last_ports(home) == Ports(airflow=8080, mlflow=5000)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        usual = Ports(airflow=choose_port(0), mlflow=taken.getsockname()[1])
        home.ports.write_bytes(usual.to_record())
        with claim_ports(home) as first:
            assert first.airflow == usual.airflow and first.mlflow != usual.mlflow
            assert last_ports(home) == first  # for those who ask while the services run
    with claim_ports(home) as second:
        assert second == first


def test_a_damaged_record_of_ports_means_the_usual_ones(home):
    home.ports.write_text('{"airflow": 99999999, "mlflow": 5000}')
    assert last_ports(home) == Ports()
