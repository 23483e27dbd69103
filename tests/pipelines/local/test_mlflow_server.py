"""MLflow is started again when it ends, and left alone when that does not help."""

import os
import time

import pytest

from pipelines.local import mlflow_server, processes
from pipelines.local.mlflow_server import MAX_SHORT_LIVES, MlflowServer

PARENT = "echo a life; sleep 600 & wait"


@pytest.fixture
def mark(tmp_path):
    mark = processes.new_mark(tmp_path)
    yield mark
    processes.sweep(mark, grace_s=0.1)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def server(tmp_path, mark, said) -> MlflowServer:
    def start(is_again: bool) -> processes.Service:
        command = ["sh", "-c", PARENT]
        return processes.start("mlflow", command, dict(os.environ), mark, tmp_path, is_again)

    return MlflowServer(start, said.append)


def kill(server: MlflowServer, mark: str) -> list[int]:
    """Kill the first process of a server that has started another one; return both."""
    deadline = time.monotonic() + 60
    while len(found := processes.marked(mark)) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    server.service.process.kill()
    server.service.process.wait()
    return [process.pid for process in found]


def test_a_killed_server_is_named_and_started_again_without_its_rest(server, mark, said):
    server.look_after()
    assert said == []
    before = kill(server, mark)
    server.look_after()
    assert said == ["MLflow was killed by SIGKILL; starting it again, and Airflow goes on"]
    assert server.service.process.poll() is None
    kill(server, mark)  # waits for the new pair
    assert not set(before) & {process.pid for process in processes.marked(mark)}
    assert server.service.log_path.read_text() == "a life\n" * 2  # the first one's log is kept


def test_a_server_that_keeps_ending_is_left_alone_and_nothing_else_ends(server, mark, said):
    for _ in range(MAX_SHORT_LIVES + 1):
        kill(server, mark)
        server.look_after()
    server.look_after()
    assert processes.marked(mark) == []
    assert len(said) == MAX_SHORT_LIVES + 1
    assert "4 times in a row, and is not started again; Airflow goes on" in said[-1]
    assert str(server.service.log_path) in said[-1]


def test_a_server_that_ends_now_and_then_is_always_started_again(server, mark, said, monkeypatch):
    monkeypatch.setattr(mlflow_server, "SHORT_LIFE_S", 0.0)
    for _ in range(MAX_SHORT_LIVES + 2):
        kill(server, mark)
        server.look_after()
    assert server.service.process.poll() is None
    assert {line.endswith("starting it again, and Airflow goes on") for line in said} == {True}
