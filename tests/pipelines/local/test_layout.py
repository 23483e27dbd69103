"""The local home: what is secret is for one person only, and odd paths are no trouble."""

import stat
from configparser import ConfigParser

import pytest
from sqlalchemy.engine import make_url

from pipelines.contracts.errors import ConfigurationError
from pipelines.local.airflow_config import write_airflow_config
from pipelines.local.layout import LocalHome, default_home


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
