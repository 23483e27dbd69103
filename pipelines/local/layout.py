"""Where the local services keep their things, and which ports they take. Not for starting them."""

import contextlib
import json
import os
import secrets
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipelines.contracts.errors import RunInProgressError
from pipelines.contracts.files import hold_lock

ADMIN = "admin"
AIRFLOW_PORT, MLFLOW_PORT = 8080, 5000
HOME_MARKER = "HOMEFEED_LOCAL_MARK"
"""Environment variable that marks every process started here; what those start inherits it."""


@dataclass(frozen=True)
class LocalHome:
    """One folder with everything that the local services write.

    <path>/airflow/            AIRFLOW_HOME: airflow.cfg, airflow.db, passwords.json (mode 0600)
    <path>/mlflow/             mlflow.db, artifacts/
    <path>/logs/               one file per service
    <path>/event_log/          unless HOMEFEED_EVENT_LOG names another one
    <path>/workspace/          runs, snapshots, history, outbox
    <path>/services.lock       held while the services run
    """

    path: Path

    @property
    def airflow(self) -> Path:
        """AIRFLOW_HOME."""
        return self.path / "airflow"

    @property
    def mlflow(self) -> Path:
        """MLflow's database and artifacts."""
        return self.path / "mlflow"

    @property
    def workspace(self) -> Path:
        """Runs, snapshots, history, outbox."""
        return self.path / "workspace"

    @property
    def logs(self) -> Path:
        """Folder of the services' logs."""
        return self.path / "logs"

    @property
    def passwords(self) -> Path:
        """File with the login, readable by this user only."""
        return self.airflow / "passwords.json"

    def create(self) -> None:
        """Make the folders; those with secrets are for this user only."""
        for folder in (self.path, self.airflow, self.mlflow, self.logs):
            folder.mkdir(parents=True, exist_ok=True)
        self.airflow.chmod(0o700)

    def password(self) -> str:
        """Return the admin's password, made at random the first time."""
        return self.secret("passwords.json", ADMIN)

    def secret(self, file_name: str, key: str) -> str:
        """Return a random secret that stays the same from start to start.

        Args:
            file_name: JSON file below `airflow`, mode 0600 from its first byte on.
            key: its name in the file.
        """
        path = self.airflow / file_name
        found = json.loads(path.read_text()) if path.exists() else {}
        if key not in found:
            found[key] = secrets.token_urlsafe(18)
            path.touch(mode=0o600)
            path.write_text(json.dumps(found))
        return str(found[key])


def default_home() -> LocalHome:
    """Return the home that HOMEFEED_HOME names, else `.homefeed` in the current folder."""
    return LocalHome(Path(os.environ.get("HOMEFEED_HOME", ".homefeed")).expanduser().absolute())


def choose_port(wanted: int) -> int:
    """Return the wanted port of 127.0.0.1 if a server could listen on it, else a free one."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def claim_port(wanted: int) -> Iterator[int]:
    """Keep a port of 127.0.0.1 from this user's other local services while the block runs.

    A server binds its port many seconds after it was chosen. Without a claim, two homes that start
    at the same time choose the same port, and one of them shows the other's pages.

    Yields:
        the wanted port if it is free and not claimed, else another one.
    """
    folder = Path(tempfile.gettempdir()) / f"homefeed-ports-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    with contextlib.ExitStack() as stack:
        port = choose_port(wanted)
        while True:
            with contextlib.suppress(RunInProgressError):
                stack.enter_context(hold_lock(folder / f"{port}.lock", f"port {port}"))
                break
            port = choose_port(0)
        yield port
