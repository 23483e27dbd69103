"""A real Redis for tests, as Celery's broker: on 127.0.0.1, with a password that a file holds.

The program is that of Debian's package `redis-server`. It keeps each message on the disk before it
answers, so that messages outlive a restart.
"""

import contextlib
import secrets
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import redis

from support.serving import Process, free_port

_CONFIGURATION = """
bind 127.0.0.1
port {port}
requirepass {password}
dir {folder}
save ""
appendonly yes
appendfsync always
"""


@dataclass
class RedisServer(Process):
    """A server whose files lie in a folder of its own."""

    folder: Path = Path()
    port: int = 0
    password: str = ""

    @property
    def secret_address(self) -> str:
        """The address with the password, as Airflow is given it in a secret file."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def is_up(self) -> bool:
        with (
            contextlib.suppress(redis.exceptions.ConnectionError),
            redis.Redis("127.0.0.1", self.port, password=self.password) as client,
        ):
            return bool(client.ping())
        return False


@contextlib.contextmanager
def redis_server(folder: Path) -> Iterator[RedisServer]:
    """Start a server, give it, and end it by its process id."""
    folder.mkdir(parents=True)
    path, password = folder / "redis.conf", secrets.token_urlsafe(18)
    path.touch(mode=0o600)
    options = {"port": free_port(), "password": password, "folder": folder}
    server = RedisServer(["redis-server", str(path)], folder / "server.log", **options)
    path.write_text(_CONFIGURATION.format(**options))
    with server.running(signal.SIGKILL):
        yield server
