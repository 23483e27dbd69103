"""The folder and the ports of the local services, and the airflow.cfg that names them.

Not for starting anything (`services`), nor for a deployment: SQLite and one admin user are for one
machine and one person. Tested in tests/pipelines/local/test_home.py.
"""

import base64
import json
import logging
import re
import secrets
import socket
from pathlib import Path
from string import Template

from pipelines import storage
from pipelines.contracts.base import Frozen
from pipelines.contracts.errors import ConfigurationError, HomefeedError
from pipelines.contracts.files import write_whole

log = logging.getLogger(__name__)
ADMIN = "admin"
HOME_MARKER = "HOMEFEED_LOCAL_MARK"
"""Environment variable that marks every process started here; what those start inherits it."""
_MISREAD = re.compile(r"[?$\n]|%[0-9A-Fa-f]{2}")


class ServiceError(HomefeedError):
    """A local service did not start, ended early, or refused a request or does not know the DAG."""

    exit_code = 69


class LocalHome:
    """One folder with everything that the local services write.

    <path>/airflow/            AIRFLOW_HOME: airflow.cfg, airflow.db, passwords.json with the login
    <path>/mlflow/             mlflow.db, artifacts/
    <path>/logs/               one file per service, tasks/
    <path>/ports.json          the ports of the first start
    <path>/event_log/          unless HOMEFEED_EVENT_LOG names another one
    <path>/workspace/          runs, snapshots, history, outbox
    <path>/services.lock       held while the services run; it names the process that keeps them up

    The first three folders are for this user only (0700), and so are databases, logs and secrets.
    Who may read the rest, HOMEFEED_UMASK says.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.workspace = path, path / "workspace"
        self.airflow, self.mlflow, self.logs = path / "airflow", path / "mlflow", path / "logs"
        self.ports = path / "ports.json"
        self.passwords = self.airflow / "passwords.json"
        # SQLAlchemy and MLflow read every path that is allowed after `sqlite:///`.
        self.airflow_database = self.airflow / "airflow.db"
        self.mlflow_database = self.mlflow / "mlflow.db"

    def create(self) -> None:
        """Make the folders, so that nobody else may ever read what lies in them.

        Raises:
            ConfigurationError: the path has a part that Airflow or a database reads otherwise.
        """
        if _MISREAD.search(str(self.path)):
            raise ConfigurationError(
                f"the home folder is {str(self.path)!r}; expected a path without '?', '$', line "
                f"ends and '%' before two hexadecimal digits, which services take for something "
                f"else; give another as --home or HOMEFEED_HOME"
            )
        self.path.mkdir(parents=True, exist_ok=True)
        for folder in (self.airflow, self.mlflow, self.logs):
            folder.mkdir(mode=0o700, exist_ok=True)
            folder.chmod(0o700)  # one that is there already

    def password(self) -> str:
        """Return the admin's password, made at random the first time."""
        return _secret(self.passwords, ADMIN)


def _secret(path: Path, key: str) -> str:
    """Return a random secret of a JSON file, the same from start to start, as URL-safe base64."""
    found = json.loads(path.read_text()) if path.exists() else {}
    if key not in found:
        found[key] = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
        path.write_text(json.dumps(found))
    return str(found[key])


class Ports(Frozen):
    """`<home>/ports.json`: the ports of Airflow's api-server and of MLflow at the first start."""

    airflow: int = 8080
    mlflow: int = 5000

    @property
    def airflow_url(self) -> str:
        """Address of Airflow's pages."""
        return f"http://127.0.0.1:{self.airflow}"

    @property
    def mlflow_url(self) -> str:
        """Address of MLflow's pages, which is also the tracking URI."""
        return f"http://127.0.0.1:{self.mlflow}"


def choose_ports(home: LocalHome) -> Ports:
    """Return the ports of the first start, or a free one for each that is taken now.

    The first start's are kept, because runs and pages name the services by them.
    """
    first = storage.find_model(storage.to_uri(home.ports), Ports, "delete it")
    wanted = first or Ports()
    ports = Ports(airflow=choose_port(wanted.airflow), mlflow=choose_port(wanted.mlflow))
    if first is None:
        write_whole(home.ports, ports.to_record())
    elif ports != first:
        log.warning(
            "another program listens on port %d or %d of 127.0.0.1, where earlier runs and pages "
            "look for Airflow and MLflow: they find them again once it has ended and these were "
            "started anew",
            *(first.airflow, first.mlflow),
        )
    return ports


def choose_port(wanted: int) -> int:
    """Return the wanted port of 127.0.0.1 if a server could listen on it, else a free one."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write_airflow_config(home: LocalHome, dags: Path, port: int) -> None:
    """Write `<home>/airflow/airflow.cfg`, with secrets that outlive a restart."""
    keys = home.airflow / "secrets.json"
    values = {
        "admin": ADMIN,
        "database_uri": f"sqlite:///{home.airflow_database}",
        "dags": dags,
        "logs": home.logs,
        "passwords": home.passwords,
        "port": port,
    }
    values |= {name: _secret(keys, name) for name in ("api_secret_key", "jwt_secret", "fernet_key")}
    template = Template((Path(__file__).parent / "templates" / "airflow.cfg").read_text())
    # In the configuration "%" begins a reference.
    escaped = {name: str(value).replace("%", "%%") for name, value in values.items()}
    (home.airflow / "airflow.cfg").write_text(template.substitute(escaped))
