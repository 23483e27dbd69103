"""The stack of docker/compose.yaml, brought up by docker or podman, on this machine's own address.

Not a test and not for production: it is what `make try-stack` looks through.
"""

import contextlib
import os
import re
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

from pipelines.local.airflow_api import FINAL_STATES, AirflowApi
from support.serving import wait_until

ROOT = Path(__file__).resolve().parents[2]
AIRFLOW_URL, MLFLOW_URL, STORE_URL = (
    f"http://127.0.0.1:{os.environ.get(f'HOMEFEED_{name}_PORT', usual)}"
    for name, usual in (("AIRFLOW", "8080"), ("MLFLOW", "5000"), ("S3", "8333"))
)
BUCKET = "homefeed"
SERVICES = (
    *("postgres", "redis", "s3", "mlflow"),
    *("api-server", "scheduler", "dag-processor", "triggerer", "worker", "api-server-2"),
)


class StackError(Exception):
    """The stack did not come up, or a cycle in it did not end."""


class Stack:
    """The running containers. Every path is of this repository."""

    def __init__(self) -> None:
        self._engine, self._compose = _engine()
        self._ended = threading.Event()
        self._looker = threading.Thread(target=self._look_at_health, daemon=True)
        self._environment = os.environ | {
            "AWS_ENDPOINT_URL": "http://s3:8000",
            "HOMEFEED_MAKE_BUCKET": "yes",
            "HOMEFEED_AIRFLOW_URL": AIRFLOW_URL,
            "HOMEFEED_MLFLOW_URL": MLFLOW_URL,
        }

    def compose(self, *words: str, check: bool = True) -> str:
        """Run `docker compose` on the stack and return what it printed."""
        file = ["--file", str(ROOT / "docker" / "compose.yaml"), "--profile", "local-s3"]
        done = subprocess.run(
            [*self._compose, *file, *words],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if check and done.returncode != 0:
            raise StackError(f"compose {' '.join(words)} ended with {done.stderr[-3000:]}")
        return done.stdout

    def up(self, timeout_s: float = 300.0) -> float:
        """Start every service, and return the seconds until all of them were healthy."""
        subprocess.run(
            ["python3", str(ROOT / "docker" / "make_secrets.py"), "--local-s3"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        started = time.monotonic()
        if "podman" in self._engine[0]:
            self._looker.start()
        self.compose("up", "--detach", "--no-build")
        self.wait_until_healthy(SERVICES, timeout_s)
        return time.monotonic() - started

    def wait_until_healthy(self, services: tuple[str, ...], timeout_s: float = 300.0) -> None:
        """Wait until the services' own health checks say that they are well."""
        wait_until(lambda: all(self.health(name) == "healthy" for name in services), timeout_s)

    def down(self) -> None:
        """End the containers and delete their volumes."""
        self._ended.set()
        self.compose("down", "--volumes", "--timeout", "5")

    def ingest(self) -> None:
        """Write the sample's event log into the bucket."""
        self.compose("--profile", "sample", "run", "--rm", "ingest")

    def container(self, service: str) -> str:
        """Return the name of a service's first container."""
        return f"homefeed-{service}-1" if "docker" in self._compose[0] else f"homefeed_{service}_1"

    def health(self, service: str) -> str:
        """Return what the engine knows of a container: starting, healthy, unhealthy, absent."""
        return self._inspect(service, "{{.State.Health.Status}}") or "absent"

    def kill(self, service: str) -> str:
        """Kill a container's first process, and with it all others, as the kernel would.

        Returns:
            When it had been started; `wait_until_restarted` asks for it.
        """
        started = self._inspect(service, "{{.State.StartedAt}}")
        pid = int(self._inspect(service, "{{.State.Pid}}"))
        if pid <= 0:
            raise StackError(f"{service} does not run")
        os.kill(pid, 9)
        return started

    def wait_until_restarted(self, service: str, started: str, timeout_s: float = 300.0) -> None:
        """Wait until a container that was killed runs anew and is healthy.

        What the engine knew of its health before it was killed would say so at once.
        """
        old = ("", started)
        wait_until(lambda: self._inspect(service, "{{.State.StartedAt}}") not in old, timeout_s)
        self.wait_until_healthy((service,), timeout_s)

    def told(self) -> str:
        """Return what may be seen of the services, in which no secret may stand.

        What they have printed, the logs of the tasks, their settings, and the argument lists of
        their processes.
        """
        found = [self.compose("logs", "--no-color")]
        task_logs = ["find", "/opt/airflow/logs", "-type", "f", "-exec", "cat", "{}", "+"]
        found.append(self.compose("exec", "-T", "worker", *task_logs))
        for service in SERVICES:
            found += [
                self._inspect(service, "{{json .Config}}"),
                self._engine_says("top", self.container(service)),
            ]
        return "\n".join(found)

    def api(self) -> AirflowApi:
        """Return a logged-in session with the stack's Airflow."""
        return AirflowApi(AIRFLOW_URL, secret("admin_password"))

    def _inspect(self, service: str, template: str) -> str:
        return self._engine_says("inspect", "--format", template, self.container(service))

    def _engine_says(self, *words: str) -> str:
        """Return what the engine prints; nothing where it fails."""
        done = subprocess.run([*self._engine, *words], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    def _look_at_health(self) -> None:
        """Have podman run health checks, which it does by itself under systemd alone."""
        while not self._ended.wait(1.0):
            for service in SERVICES:
                self._engine_says("healthcheck", "run", self.container(service))


def secret(name: str) -> str:
    """Return a secret of the stack."""
    return (ROOT / "docker" / "secrets" / name).read_text().strip()


def all_secrets() -> dict[str, set[str]]:
    """Return the words of each file of secrets that are secret: those that were drawn at random."""
    known = {"authenticate_request_basic_auth"}  # a name in MLflow's file
    return {
        path.name: set(re.findall(r"[A-Za-z0-9_=-]{30,}", path.read_text())) - known
        for path in sorted((ROOT / "docker" / "secrets").iterdir())
    }


def use_store() -> None:
    """Let this process read the stack's bucket, as a person on this machine would."""
    os.environ |= {
        "AWS_ENDPOINT_URL": STORE_URL,
        "AWS_REGION": "us-east-1",
        "AWS_SHARED_CREDENTIALS_FILE": str(ROOT / "docker" / "secrets" / "aws_credentials"),
    }


def finish(api: AirflowApi, run_id: str, timeout_s: float = 1800.0) -> str:
    """Wait until a run has ended, also while the api-server is away, and return its state."""
    found: dict[str, Any] = {}

    def has_ended() -> bool:
        with contextlib.suppress(Exception):
            found.update(api.find_run(run_id) or {})
        return found.get("state") in FINAL_STATES

    wait_until(has_ended, timeout_s)
    return str(found["state"])


def _engine() -> tuple[list[str], list[str]]:
    """Return the commands of the engine and of its compose."""
    if named := os.environ.get("ENGINE"):
        engine = named.split()
    elif found := shutil.which("docker") or shutil.which("podman"):
        engine = [found]
    else:
        raise StackError("neither docker nor podman is there; install one of them, or set ENGINE")
    if "podman" in engine[0]:
        return engine, ["podman-compose"]
    return engine, [*engine, "compose"]
