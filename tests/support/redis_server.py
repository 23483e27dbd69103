"""A real Redis for tests, as Celery's broker: on 127.0.0.1, with a password that a file holds.

The program is that of Debian's package `redis-server`. It keeps each message on the disk before it
answers, so that messages outlive a restart.
"""

import contextlib
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from support.mlflow_server import free_port

_STARTED_WITHIN_S = 30.0
_CONFIGURATION = """
bind 127.0.0.1
port {port}
requirepass {password}
dir {folder}
save ""
appendonly yes
appendfsync always
logfile {folder}/server.log
"""


@dataclass
class RedisServer:
    """A server that can be ended and started again with what it held."""

    folder: Path
    port: int
    password: str
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def secret_address(self) -> str:
        """The address with the password, as Airflow is given it in a secret file."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start the server and wait until it answers.

        Raises:
            RuntimeError: it ended, or does not answer in time.
        """
        import redis

        program = shutil.which("redis-server")
        if program is None:
            raise RuntimeError(
                "redis-server is not there; `make test-all` installs it where it is run as "
                "root (Debian: apt-get install redis-server)"
            )
        self.process = subprocess.Popen(
            [program, str(self.folder / "redis.conf")],
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        client = redis.Redis("127.0.0.1", self.port, password=self.password)
        deadline = time.monotonic() + _STARTED_WITHIN_S
        while True:
            with contextlib.suppress(redis.exceptions.ConnectionError):
                client.ping()
                break
            if self.process.poll() is not None or time.monotonic() > deadline:
                said = (self.folder / "server.log").read_text()[-2000:]
                raise RuntimeError(f"Redis does not answer at port {self.port}: {said}")
            time.sleep(0.05)
        client.close()

    def kill(self) -> None:
        """End the server as a fault would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def restart(self, pause_s: float = 0.0) -> None:
        """Kill the server, and start it again after a pause."""
        self.kill()
        time.sleep(pause_s)
        self.start()


@contextlib.contextmanager
def redis_server(folder: Path) -> Iterator[RedisServer]:
    """Start a server, give it, and end it by its process id."""
    folder.mkdir(parents=True)
    server = RedisServer(folder, free_port(), secrets.token_urlsafe(18))
    configuration = folder / "redis.conf"
    configuration.touch(mode=0o600)
    options = {"port": server.port, "password": server.password, "folder": folder}
    configuration.write_text(_CONFIGURATION.format(**options))
    server.start()
    try:
        yield server
    finally:
        server.kill()
