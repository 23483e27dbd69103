"""Ports that are free, claimed by one start at a time, and the same at the next one."""

import socket

import pytest

from pipelines.local.layout import LocalHome
from pipelines.local.ports import Ports, choose_port, claim_port, claim_ports, last_ports


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
