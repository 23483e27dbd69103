"""Where the local services keep their things, and who may read them. Not for starting them."""

import json
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from pipelines.contracts.errors import ConfigurationError
from pipelines.settings import Settings

ADMIN = "admin"
HOME_MARKER = "HOMEFEED_LOCAL_MARK"
"""Environment variable that marks every process started here; what those start inherits it."""
_MISREAD = re.compile(r"[?$\n]|%[0-9A-Fa-f]{2}")


@dataclass(frozen=True)
class LocalHome:
    """One folder with everything that the local services write.

    <path>/airflow/            AIRFLOW_HOME: airflow.cfg, airflow.db, passwords.json
    <path>/mlflow/             mlflow.db, artifacts/
    <path>/logs/               one file per service, tasks/
    <path>/ports.json          the ports of the last start
    <path>/event_log/          unless HOMEFEED_EVENT_LOG names another one
    <path>/workspace/          runs, snapshots, history, outbox
    <path>/services.lock       held while the services run

    The first three folders are for this user only (0700), and their databases, logs and secrets too
    (0600). What is published lies in the workspace, and others may read it.
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

    @property
    def airflow_database(self) -> Path:
        """Airflow's SQLite database."""
        return self.airflow / "airflow.db"

    @property
    def mlflow_database(self) -> Path:
        """MLflow's SQLite database."""
        return self.mlflow / "mlflow.db"

    @property
    def ports(self) -> Path:
        """File with the ports of the last start."""
        return self.path / "ports.json"

    @property
    def lock(self) -> Path:
        """File that is locked while the services run; it names the process that keeps them up."""
        return self.path / "services.lock"

    def create(self) -> None:
        """Make the folders and empty databases, so that nobody else may ever read them.

        Raises:
            ConfigurationError: the path has a part that Airflow or a database reads otherwise.
        """
        if found := _MISREAD.findall(str(self.path)):
            raise ConfigurationError(
                f"the home folder {str(self.path)!r} has {found} in its path; expected no '?', no "
                f"'$', no line end, and no '%' before two hexadecimal digits, which databases' "
                f"addresses and Airflow's configuration take for something else; give another "
                f"folder as --home or HOMEFEED_HOME"
            )
        self.path.mkdir(parents=True, exist_ok=True)
        for folder in (self.airflow, self.mlflow, self.logs):
            folder.mkdir(mode=0o700, exist_ok=True)
            folder.chmod(0o700)  # one that is there already
        for database in (self.airflow_database, self.mlflow_database):
            # SQLite gives the files that it makes beside a database the mode of the database.
            database.touch(mode=0o600)
            for path in database.parent.glob(f"{database.name}*"):
                path.chmod(0o600)

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


def sqlite_uri(database: Path) -> str:
    """Return a database's address. SQLAlchemy and MLflow both read every path that is allowed."""
    return f"sqlite:///{database}"


def default_home() -> LocalHome:
    """Return the home that HOMEFEED_HOME names; where it is empty or not set, the usual one."""
    path = os.environ.get("HOMEFEED_HOME") or Settings.model_fields["home"].default
    return LocalHome(Path(path).expanduser().absolute())
