"""A service is up when it answers itself, MLflow is started again, and who ends them is told."""

import http.server
import os
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from pipelines.local import processes, services
from pipelines.local.home import choose_port
from pipelines.local.services import (
    MAX_SHORT_LIVES,
    HealthPage,
    MlflowServer,
    ServiceError,
    require_running,
    wait_until_up,
)

HEALTH = "/api/v2/monitor/health"
SERVER = (
    "import http.server, sys; http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), "
    "http.server.SimpleHTTPRequestHandler).serve_forever()"
)
PARENT = "echo a life; sleep 600 & wait"


class Hello(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def foreign_port() -> Iterator[int]:
    """The port of another program's server, which answers to everything."""
    with http.server.HTTPServer(("127.0.0.1", 0), Hello) as server:
        threading.Thread(target=server.serve_forever).start()
        yield server.server_port
        server.shutdown()


@pytest.fixture
def mark(tmp_path):
    mark = processes.new_mark(tmp_path)
    yield mark
    processes.sweep(mark, grace_s=0.1)


@pytest.fixture
def start(tmp_path, mark):
    def start(*command: str) -> processes.Service:
        return processes.start("api-server", command, dict(os.environ), mark, tmp_path)

    return start


@pytest.mark.parametrize(
    "page", [("/health",), (HEALTH, ("scheduler",))], ids=["mlflow", "airflow"]
)
def test_another_programs_server_on_the_port_is_told_in_one_line(start, foreign_port, page):
    script = "import time; time.sleep(0.5); print('Traceback'); raise SystemExit(1)"
    service = start(sys.executable, "-c", script)
    alive = partial(require_running, service)
    with pytest.raises(ServiceError) as raised:
        wait_until_up(service, HealthPage(foreign_port, *page), alive, timeout_s=20)
    message = str(raised.value)
    assert message.startswith(f"port {foreign_port} was free, and another program took it while")
    assert "\n" not in message


def test_a_service_that_answers_on_its_port_is_up(start, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "health").write_text("fine")
    port = choose_port(0)
    service = start(sys.executable, "-c", SERVER, str(port))
    page = HealthPage(port, "/health")
    wait_until_up(service, page, partial(require_running, service), timeout_s=20)
    assert page.is_good()
    service.process.kill()
    service.process.wait()
    with pytest.raises(ServiceError, match="api-server was killed by SIGKILL; the end of"):
        wait_until_up(service, page, partial(require_running, service), timeout_s=20)


def test_a_service_that_does_not_answer_is_not_waited_for_for_ever(start):
    service = start(sys.executable, "-c", "import time; time.sleep(60)")
    page = HealthPage(choose_port(0), "/health")
    with pytest.raises(ServiceError, match="api-server does not answer after 1 s"):
        wait_until_up(service, page, partial(require_running, service), timeout_s=1)


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
    monkeypatch.setattr(services, "SHORT_LIFE_S", 0.0)
    for _ in range(MAX_SHORT_LIVES + 2):
        kill(server, mark)
        server.look_after()
    assert server.service.process.poll() is None
    assert {line.endswith("starting it again, and Airflow goes on") for line in said} == {True}


def test_what_is_waited_for_is_said_before_it_ends(tmp_path: Path, mark: str) -> None:
    said = []
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    processes.start("test", command, dict(os.environ), mark, tmp_path)

    def say(line: str) -> None:
        said.append((line, len(processes.marked(mark))))

    services._end(mark, say)
    [(line, num_left)] = said
    assert line.startswith("waiting for 1 process(es) of Airflow and MLflow to end")
    assert f"{processes.GRACE_S:g} s" in line and num_left == 1
    assert processes.marked(mark) == []
    services._end(mark, say)
    assert len(said) == 1
