"""The airflow.cfg of the local services, from `templates/airflow.cfg`: on 127.0.0.1, with secrets.

Not a deployment's configuration: SQLite and one admin user are for one machine and one person.
Tested in tests/pipelines/local/test_layout.py.
"""

import base64
import hashlib
from pathlib import Path
from string import Template

from pipelines.local.layout import ADMIN, LocalHome, sqlite_uri


def write_airflow_config(home: LocalHome, dags: Path, port: int) -> None:
    """Write `<home>/airflow/airflow.cfg` (mode 0600), with secrets that outlive a restart.

    Args:
        home: where everything lies.
        dags: folder with the DAG file.
        port: of the api-server; it changes when the usual one is taken.
    """
    template = Template((Path(__file__).parent / "templates" / "airflow.cfg").read_text())
    # The key that encrypts connections in the database is 32 bytes in URL-safe base64.
    fernet_seed = home.secret("secrets.json", "fernet_seed").encode()
    path = home.airflow / "airflow.cfg"
    path.touch(mode=0o600)
    path.write_text(
        template.substitute(
            admin=ADMIN,
            database_uri=_escaped(sqlite_uri(home.airflow_database)),
            dags=_escaped(dags),
            logs=_escaped(home.logs),
            passwords=_escaped(home.passwords),
            port=port,
            api_secret_key=home.secret("secrets.json", "api_secret_key"),
            jwt_secret=home.secret("secrets.json", "jwt_secret"),
            fernet_key=base64.urlsafe_b64encode(hashlib.sha256(fernet_seed).digest()).decode(),
        )
    )


def _escaped(value: Path | str) -> str:
    """Return a value as the configuration has it, where "%" begins a reference."""
    return str(value).replace("%", "%%")
