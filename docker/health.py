"""Whether a part of Airflow is well; a container's health check: `health.py scheduler`.

Without a word the part is what the container's first process was told to be.

Scheduler, DAG processor and triggerer write a heartbeat into the database. The api-server tells
them in one answer, which costs a tenth of a second where `airflow jobs check` costs four: it loads
all of Airflow. A worker is asked through the broker, since only that shows that it takes tasks.
"""

import json
import os
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

_PARTS = {"scheduler": "scheduler", "dag-processor": "dag_processor", "triggerer": "triggerer"}
_ALL_PARTS = (*_PARTS, "api-server", "worker")
_CELERY_APP = "airflow.providers.celery.executors.celery_executor.app"
_API_SERVER = "http://api-server:8080"
_TIMEOUT_S = 8


def main(part: str) -> int:
    """Return 0 where the part is well, and print what is known of it."""
    if part == "worker":
        name = f"celery@{socket.gethostname()}"
        command = ["celery", "--app", _CELERY_APP, "inspect", "ping", "--destination", name]
        return subprocess.run(command, check=False).returncode
    here = part == "api-server"
    server = "http://127.0.0.1:8080" if here else os.environ.get("API_SERVER", _API_SERVER)
    with urllib.request.urlopen(f"{server}/api/v2/monitor/health", timeout=_TIMEOUT_S) as answer:
        found = json.load(answer)
    state = found["metadatabase" if here else _PARTS[part]]
    sys.stdout.write(f"{state}\n")
    return 0 if state["status"] == "healthy" else 1


def part_of(command: bytes) -> str:
    """Return the part that a process was started as, from its command line as Linux gives it.

    Raises:
        SystemExit: it is none that has a health.
    """
    words = command.decode(errors="replace").split("\0")
    for word in words:
        if word in _ALL_PARTS:
            return word
    raise SystemExit(f"found {' '.join(words)!r}; expected one of {', '.join(_ALL_PARTS)}")


if __name__ == "__main__":
    own = sys.argv[1] if sys.argv[1:] else part_of(Path("/proc/1/cmdline").read_bytes())
    raise SystemExit(main(own))
