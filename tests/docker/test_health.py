"""A part of Airflow is well where its heartbeat says so; nobody's answer is no health."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.answers import server_that_answers

ROOT = Path(__file__).resolve().parents[2]
ANSWER = {
    "metadatabase": {"status": "healthy"},
    "scheduler": {"status": "healthy", "latest_scheduler_heartbeat": "2026-01-05T06:00:00Z"},
    "dag_processor": {"status": "unhealthy", "latest_dag_processor_heartbeat": None},
    "triggerer": {"status": None, "latest_triggerer_heartbeat": None},
}


def health_of(part: str, server: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "docker/health.py", part],
        cwd=ROOT,
        env={"API_SERVER": server},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("part", "is_well"), [("scheduler", True), ("dag-processor", False), ("triggerer", False)]
)
def test_a_part_is_well_where_its_heartbeat_says_so(part: str, is_well: bool) -> None:
    with server_that_answers(200, json.dumps(ANSWER).encode()) as url:
        done = health_of(part, url)
    assert (done.returncode == 0) == is_well, done.stderr
    assert "status" in done.stdout


def test_an_api_server_that_is_away_or_refuses_is_no_health() -> None:
    with server_that_answers(500) as url:
        assert health_of("scheduler", url).returncode != 0
    assert health_of("scheduler", url).returncode != 0


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (b"/sbin/docker-init\0--\0/entrypoint\0scheduler\0", "scheduler"),
        (b"python3\0/opt/homefeed/bin/airflow\0celery\0worker\0", "worker"),
        (
            b"bash\0-c\0exec airflow triggerer\0",
            "found 'bash -c exec airflow triggerer '; expected",
        ),
    ],
)
def test_the_part_is_what_the_first_process_was_told_to_be(command: bytes, expected: str) -> None:
    script = (
        "import sys; sys.path.insert(0, 'docker'); import health; "
        "print(health.part_of(bytes.fromhex(sys.argv[1])))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, command.hex()],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert expected in done.stdout + done.stderr
    assert (done.returncode == 0) == (expected in ("scheduler", "worker"))
