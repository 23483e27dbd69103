"""A service is up when it answers itself, and what is waited for at the end is told."""

import http.server
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipelines.local import processes, services
from pipelines.local.home import LocalHome, Ports, choose_port
from pipelines.local.services import (
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


def test_another_programs_server_on_the_port_is_not_taken_for_it(start, foreign_port) -> None:
    service = start("import time; time.sleep(0.5); print('Traceback'); raise SystemExit(1)")
    with pytest.raises(ServiceError, match="(?s)api-server ended with exit code 1.*Traceback"):
        wait_until_up(service, f"http://127.0.0.1:{foreign_port}/", (), [service], timeout_s=20)


@pytest.mark.parametrize("status", ["healthy", "unhealthy", None])
def test_a_service_is_up_when_it_answers_itself_and_its_parts_are_healthy(
    start, tmp_path, monkeypatch, status
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "health").write_text(json.dumps({"scheduler": {"status": status}}))
    port = choose_port(0)
    service, address = start(SERVER, str(port)), f"http://127.0.0.1:{port}/health"
    wait_until_up(service, address, (), [service], timeout_s=20)
    if status != "healthy":
        with pytest.raises(ServiceError, match="api-server does not answer after 1 s"):
            wait_until_up(service, address, ("scheduler",), [service], timeout_s=1)
        return
    wait_until_up(service, address, ("scheduler",), [service], timeout_s=20)
    services = RunningServices(LocalHome(tmp_path), Ports(), (service,))
    services.look_after()
    service.process.kill()
    service.process.wait()
    with pytest.raises(ServiceError, match="api-server was killed by SIGKILL; the end of"):
        services.look_after()


def test_what_is_waited_for_is_said_before_it_ends(tmp_path: Path, monkeypatch) -> None:
    home, said = LocalHome(tmp_path / "home"), []

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
