"""A service is up when it answers itself, MLflow is started again, and who ends them is told."""

import http.server
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipelines.local import processes, services
from pipelines.local.home import LocalHome, Ports, choose_port
from pipelines.local.services import (
    AIRFLOW_HEALTH,
    MAX_RESTARTS,
    HealthPage,
    RunningServices,
    ServiceError,
    running,
    wait_until_up,
)

SERVER = (
    "import http.server, sys; http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), "
    "http.server.SimpleHTTPRequestHandler).serve_forever()"
)
SLEEP = "import time; time.sleep(600)"
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
def mark(tmp_path: Path) -> Iterator[str]:
    mark = processes.new_mark(tmp_path)
    yield mark
    processes.sweep(mark, grace_s=0.1)


@pytest.fixture
def start(tmp_path: Path, mark: str) -> Callable[..., processes.Service]:
    def start(script: str, *words: str) -> processes.Service:
        command = [sys.executable, "-c", script, *words]
        return processes.start("api-server", command, dict(os.environ), mark, tmp_path)

    return start


@pytest.mark.parametrize(
    "page", [("/health",), (AIRFLOW_HEALTH, ("scheduler",))], ids=["mlflow", "airflow"]
)
def test_another_programs_server_on_the_port_is_told_in_one_line(start, foreign_port, page) -> None:
    service = start("import time; time.sleep(0.5); print('Traceback'); raise SystemExit(1)")
    with pytest.raises(ServiceError) as raised:
        wait_until_up(service, HealthPage(foreign_port, *page), [service], timeout_s=20)
    message = str(raised.value)
    assert message.startswith(f"port {foreign_port} was free, and another program took it while")
    assert "\n" not in message


def test_a_service_that_answers_on_its_port_is_up(start, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "health").write_text("fine")
    port = choose_port(0)
    service = start(SERVER, str(port))
    page = HealthPage(port, "/health")
    wait_until_up(service, page, [service], timeout_s=20)
    assert page.is_good()
    service.process.kill()
    service.process.wait()
    with pytest.raises(ServiceError, match="api-server was killed by SIGKILL; the end of"):
        wait_until_up(service, page, [service], timeout_s=20)


def test_a_service_that_does_not_answer_is_not_waited_for_for_ever(start) -> None:
    service = start(SLEEP)
    with pytest.raises(ServiceError, match="api-server does not answer after 1 s"):
        wait_until_up(service, HealthPage(choose_port(0), "/health"), [service], timeout_s=1)


@pytest.fixture
def up(tmp_path: Path, mark: str) -> tuple[RunningServices, list[str]]:
    """An MLflow whose server is a child of the first process, and what is said of it."""
    said: list[str] = []

    def start(is_again: bool) -> processes.Service:
        command = ["sh", "-c", PARENT]
        return processes.start("mlflow", command, dict(os.environ), mark, tmp_path, is_again)

    home = LocalHome(tmp_path)
    return RunningServices(home, Ports(), said.append, start, start(False), ()), said


def kill(up: RunningServices, mark: str) -> list[int]:
    """Kill the first process of a server that has started another one; return both."""
    deadline = time.monotonic() + 60
    while len(found := processes.marked(mark)) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    up.mlflow.process.kill()
    up.mlflow.process.wait()
    return [process.pid for process in found]


def test_a_killed_server_is_named_and_started_again_without_its_rest(up, mark) -> None:
    services, said = up
    services.look_after()
    assert said == []
    before = kill(services, mark)
    services.look_after()
    assert said == ["MLflow was killed by SIGKILL; starting it again, and Airflow goes on"]
    assert services.mlflow.process.poll() is None
    kill(services, mark)  # waits for the new pair
    assert not set(before) & {process.pid for process in processes.marked(mark)}
    assert services.mlflow.log_path.read_text() == "a life\n" * 2  # the first one's log is kept


def test_a_server_that_keeps_ending_is_left_alone_and_nothing_else_ends(up, mark) -> None:
    services, said = up
    for _ in range(MAX_RESTARTS + 1):
        kill(services, mark)
        services.look_after()
    services.look_after()
    assert processes.marked(mark) == []
    assert len(said) == MAX_RESTARTS + 1
    assert "for the 4th time, and is not started again; Airflow goes on" in said[-1]
    assert str(services.mlflow.log_path) in said[-1]


def test_what_is_waited_for_is_said_before_it_ends(tmp_path: Path, monkeypatch) -> None:
    home, said = LocalHome(tmp_path / "home"), []
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def start_all(home, dags, say, extra, mark, ports) -> None:
        processes.start("test", [sys.executable, "-c", SLEEP], dict(os.environ), mark, home.logs)

    def say(line: str) -> None:
        said.append((line, len(processes.marked(processes.marks_of(home.path)))))

    monkeypatch.setattr(services, "_start_all", start_all)
    with running(home, tmp_path, say):
        said.clear()  # of ports that are taken
    [(line, num_left)] = said
    assert line.startswith("waiting for 1 process(es) of Airflow and MLflow to end")
    assert f"{processes.GRACE_S:g} s" in line and num_left == 1
    assert processes.marked(processes.marks_of(home.path)) == []
