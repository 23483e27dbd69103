"""Whether a service answers: itself, and not another program that has its port."""

import http.server
import os
import sys
import threading
from collections.abc import Iterator
from functools import partial

import pytest

from pipelines.local import processes
from pipelines.local.health import HealthPage, ServiceError, require_running, wait_until_up
from pipelines.local.ports import choose_port

HEALTH = "/api/v2/monitor/health"
SERVER = (
    "import http.server, sys; http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), "
    "http.server.SimpleHTTPRequestHandler).serve_forever()"
)


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
def start(tmp_path):
    mark = processes.new_mark(tmp_path)

    def start(*command: str) -> processes.Service:
        return processes.start("api-server", command, dict(os.environ), mark, tmp_path)

    yield start
    processes.sweep(mark)


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
