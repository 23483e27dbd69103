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
WELL = (200, json.dumps(ANSWER).encode())


SCRIPT = (
    "import sys; sys.path.insert(0, 'docker'); import health; "
    "print(health.part_of(bytes.fromhex(sys.argv[1])))"
)


def run(*words: str, **environment: str) -> tuple[bool, str]:
    """Return whether it ended well, and what it said."""
    command, more = [sys.executable, *words], {"capture_output": True, "text": True}
    done = subprocess.run(command, cwd=ROOT, env=environment, check=False, **more)
    return done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("part", "answer", "is_well"),
    [
        ("scheduler", WELL, True),
        ("dag-processor", WELL, False),
        ("triggerer", WELL, False),
        ("scheduler", (500,), False),
        ("scheduler", None, False),  # it is away
    ],
)
def test_a_part_is_well_where_its_heartbeat_says_so(
    part: str, answer: tuple | None, is_well: bool
) -> None:
    with server_that_answers(*(answer or WELL)) as url:
        found, said = run("docker/health.py", part, API_SERVER=url if answer else "http://[::1]:9")
    assert found == is_well and ("status" in said or answer != WELL), said


@pytest.mark.parametrize(
    ("command", "expected", "is_part"),
    [
        (b"/sbin/docker-init\0--\0/entrypoint\0scheduler\0", "scheduler", True),
        (b"python3\0/opt/homefeed/bin/airflow\0celery\0worker\0", "worker", True),
        (b"bash\0-c\0exec airflow triggerer\0", "found 'bash -c exec airflow triggerer '; ", False),
    ],
)
def test_the_part_is_what_the_first_process_was_told_to_be(
    command: bytes, expected: str, is_part: bool
) -> None:
    found, said = run("-c", SCRIPT, command.hex())
    assert found == is_part and expected in said
