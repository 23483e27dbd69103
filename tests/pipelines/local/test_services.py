"""A service is up when it answers itself, and what is waited for at the end is told."""

import json
import os
import sys
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


def test_a_service_that_ends_is_told_with_the_end_of_its_log(start) -> None:
    service = start("print('Traceback'); raise SystemExit(1)")
    with pytest.raises(ServiceError, match="(?s)api-server ended with exit code 1.*Traceback"):
        wait_until_up(service, "http://127.0.0.1:9/", (), [service], timeout_s=20)


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
    with pytest.raises(ServiceError, match="api-server ended with exit code -9; the end of"):
        services.look_after()


def test_what_is_waited_for_is_said_before_it_ends(tmp_path: Path, monkeypatch) -> None:
    home, said = LocalHome(tmp_path / "home"), list[tuple[str, int]]()

    def start_all(home, dags, say, extra, mark, ports) -> None:
        processes.start("test", [sys.executable, "-c", SLEEP], dict(os.environ), mark, home.logs)

    def say(line: str) -> None:
        said.append((line, len(processes.marked(processes.marks_of(home.path)))))

    monkeypatch.setattr(services, "_start_all", start_all)
    with running(home, tmp_path, say):
        pass
    [(line, num_left)] = said
    assert line.startswith("ending Airflow and MLflow") and num_left == 1
    assert processes.marked(processes.marks_of(home.path)) == []
