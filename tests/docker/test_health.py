"""A part of Airflow is well where its heartbeat says so; nobody's answer is no health."""

import json
import runpy
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
SCRIPT = str(ROOT / "docker" / "health.py")


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
def test_a_part_is_well_where_its_heartbeat_says_so(part, answer, is_well) -> None:
    with server_that_answers(*(answer or WELL)) as url:
        told = {"API_SERVER": url if answer else "http://[::1]:9"}
        more = {"env": told, "capture_output": True, "text": True}
        done = subprocess.run([sys.executable, SCRIPT, part], check=False, **more)
    assert (done.returncode == 0) == is_well, done.stderr
    assert "status" in done.stdout + done.stderr or answer != WELL


def test_the_part_is_what_the_first_process_was_told_to_be() -> None:
    part_of = runpy.run_path(SCRIPT)["part_of"]
    assert part_of(b"/sbin/docker-init\0--\0/entrypoint\0scheduler\0") == "scheduler"
    assert part_of(b"python3\0/opt/homefeed/bin/airflow\0celery\0worker\0") == "worker"
    with pytest.raises(SystemExit, match="found 'bash -c exec airflow triggerer '; "):
        part_of(b"bash\0-c\0exec airflow triggerer\0")
