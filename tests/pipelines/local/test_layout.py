"""The local home: secrets for one person only, and ports that are free."""

import socket
import stat

from pipelines.local.airflow_config import write_airflow_config
from pipelines.local.layout import LocalHome, choose_port, claim_port


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
