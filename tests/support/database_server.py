"""A real PostgreSQL for tests: a database and a user each for Airflow and MLflow, on 127.0.0.1.

The programs are those of Debian's package `postgresql`. PostgreSQL refuses to run as root, so root
starts it as the package's user `postgres`. Passwords are drawn anew and stand in files that only
their reader may read (libpq's own form, PGPASSFILE), in no address and no argument list.
"""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.find_servers import Server
from support.serving import Process, free_port

USERS = ("airflow", "mlflow")
"""Each owns the database of its name."""
_OWNER = "postgres"
_DURABLE_ENOUGH = ("-c", "fsync=off")
"""Its process is killed here and never the machine, so nothing need reach the disk."""


def program(name: str) -> str:
    """Return the path of one of PostgreSQL's programs."""
    found = Server(name, (name,), ("postgresql",)).find()
    assert found is not None, f"PostgreSQL's {name} is not there; `make test-all` installs it"
    return found


@dataclass
class DatabaseServer(Process):
    """A server that can be ended, killed and started again on the same port and folder.

    SIGINT breaks all connections and ends in order, as a restart of the service does; SIGQUIT ends
    at once, and the next start recovers from the log of writes.
    """

    folder: Path = Path()
    port: int = 0
    passwords: dict[str, str] = field(default_factory=dict)

    def address(self, user: str, driver: str = "psycopg2") -> str:
        """Return the address of a user's database, without a password."""
        return f"postgresql+{driver}://{user}@127.0.0.1:{self.port}/{user}"

    def secret_address(self, user: str) -> str:
        """Return the address as Airflow is given it in a secret file: with the password."""
        return f"postgresql://{user}:{self.passwords[user]}@127.0.0.1:{self.port}/{user}"

    def password_file(self, user: str, folder: Path) -> Path:
        """Write the file that PGPASSFILE names for a user."""
        path = folder / f"{user}.pgpass"
        path.touch(mode=0o600)
        path.write_text(f"127.0.0.1:{self.port}:*:{user}:{self.passwords[user]}\n")
        return path

    def connect(self, user: str, database: str = "") -> Any:
        """Return a connection that a test looks through."""
        import psycopg2

        options = {"host": "127.0.0.1", "port": self.port, "password": self.passwords[user]}
        return psycopg2.connect(user=user, dbname=database or user, **options)

    def send(self, how: signal.Signals) -> None:
        """Send a signal to the first process, which tells the others."""
        assert self.process is not None
        self.process.send_signal(how)

    def is_up(self) -> bool:
        import psycopg2

        with contextlib.suppress(psycopg2.OperationalError):
            self.connect(_OWNER).close()
            return True
        return False


def _as_owner() -> dict[str, Any]:
    """Return the options of a process that does not run as root."""
    # The owner's groups, and not root's, so that it is no more than it would be as a service.
    return {"user": _OWNER, "group": _OWNER, "extra_groups": []} if os.geteuid() == 0 else {}


@contextlib.contextmanager
def database_server() -> Iterator[DatabaseServer]:
    """Start a new server with the users' databases, give it, and end it by its process id."""
    # Not below a test's folder, which only its owner may enter.
    folder = Path(tempfile.mkdtemp(prefix="homefeed-postgres-"))
    drawn = {user: secrets.token_urlsafe(18) for user in (_OWNER, *USERS)}
    port = free_port()
    command = [program("postgres"), "-D", str(folder / "data"), *_DURABLE_ENOUGH]
    command += ["-p", str(port), "-c", "listen_addresses=127.0.0.1"]
    command += ["-c", "unix_socket_directories=", "-c", "max_connections=150"]
    server = DatabaseServer(
        command,
        folder / "server.log",
        options=_as_owner(),
        folder=folder,
        port=port,
        passwords=drawn,
    )
    try:
        _make_cluster(server)
        with server.running(signal.SIGQUIT):
            _make_databases(server)
            yield server
    finally:
        shutil.rmtree(folder)


def _make_cluster(server: DatabaseServer) -> None:
    password = server.folder / "owner-password"
    password.touch(mode=0o600)
    password.write_text(server.passwords[_OWNER])
    if os.geteuid() == 0:
        for path in (server.folder, password):
            shutil.chown(path, _OWNER, _OWNER)
    command = [program("initdb"), "-D", str(server.folder / "data"), "-U", _OWNER]
    command += ["--auth=scram-sha-256", f"--pwfile={password}", "--encoding=UTF8", "--no-sync"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, **_as_owner())
    if done.returncode != 0:
        raise RuntimeError(f"initdb ended with {done.returncode}: {done.stdout}{done.stderr}")
    password.unlink()


def _make_databases(server: DatabaseServer) -> None:
    from psycopg2 import sql

    with contextlib.closing(server.connect(_OWNER)) as connection:
        connection.autocommit = True
        cursor = connection.cursor()
        for user in USERS:
            name, password = sql.Identifier(user), sql.Literal(server.passwords[user])
            cursor.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(name, password))
            cursor.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(name, name))
            cursor.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(name))
