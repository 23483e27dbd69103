"""A service is up when it answers itself, and what is waited for at the end is told."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.local import processes, services
from pipelines.local.home import LocalHome, Ports, choose_port
from pipelines.local.services import RunningServices, ServiceError, running
from support.serving import Handler, http_server

SLEEP = ("-c", "import time; time.sleep(600)")


@pytest.fixture
def started(tmp_path: Path) -> Iterator[RunningServices]:
    """No services yet; whatever a test starts ends with it."""
    home, mark = LocalHome(tmp_path), processes.new_mark(tmp_path)
    home.create()
    yield RunningServices(home, Ports(airflow=choose_port(0)), dict(os.environ), mark)
    processes.sweep(mark, grace_s=0.1)


def test_a_service_that_ends_is_told_with_the_end_of_its_log(started: RunningServices) -> None:
    started.start("api-server", "-c", "print('Traceback'); raise SystemExit(1)")
    with pytest.raises(ServiceError, match="(?s)api-server ended with exit code 1.*Traceback"):
        started.wait_for("api-server")


@pytest.mark.parametrize("status", ["healthy", "unhealthy", None])
def test_a_service_is_up_when_it_answers_itself_and_its_parts_are_healthy(
    started: RunningServices, monkeypatch: pytest.MonkeyPatch, status: str | None
) -> None:
    def say(handler: Handler) -> None:
        handler.answer(200, json.dumps({"scheduler": {"status": status}}).encode())

    service = started.start("api-server", *SLEEP)
    with http_server(Handler, do_GET=say) as url:
        started.ports = Ports(airflow=int(url.rpartition(":")[2]))
        started.wait_for("api-server")
        if status != "healthy":
            monkeypatch.setattr(services, "START_TIMEOUT_S", 1)
            with pytest.raises(ServiceError, match="api-server does not answer after 1 s"):
                started.wait_for("api-server", "scheduler")
            return
        started.wait_for("api-server", "scheduler")
    started.look_after()
    service.process.kill()
    service.process.wait()
    with pytest.raises(ServiceError, match="api-server ended with exit code -9; the end of"):
        started.look_after()


def test_what_is_waited_for_is_said_before_it_ends(tmp_path: Path) -> None:
    home, said = LocalHome(tmp_path / "home"), list[tuple[str, int]]()

    def say(line: str) -> None:
        said.append((line, len(processes.marked(processes.marks_of(home.path)))))

    with running(home, tmp_path, say, {}, lambda begun: begun.start("test", *SLEEP)):
        pass
    (_, none), (line, num_left) = said
    assert line.startswith("ending Airflow and MLflow") and (none, num_left) == (0, 1)
    assert processes.marked(processes.marks_of(home.path)) == []
