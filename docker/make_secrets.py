"""Writes the files of docker/secrets/: one password each, drawn at random, none of them known.

    python3 docker/make_secrets.py                 keys of your bucket from AWS_ACCESS_KEY_ID,
                                                   AWS_SECRET_ACCESS_KEY and, where there is one,
                                                   AWS_SESSION_TOKEN
    python3 docker/make_secrets.py --local-s3      keys for the store of the profile local-s3

A file that is there stays as it is, so the command may be given again. The folder is for its owner
alone (0700). The files can be read by all (0444), because containers of several users read them and
are given each file, not the folder. Needs Python alone. Tested in tests/docker/test_stack.py.
"""

import argparse
import base64
import configparser
import os
import secrets
import sys
from collections.abc import Callable
from pathlib import Path

FOLDER = Path(__file__).parent / "secrets"


def main() -> None:
    """Write what is missing, and name it."""
    parser = argparse.ArgumentParser(description="Write the secrets of docker/compose.yaml.")
    parser.add_argument("--local-s3", action="store_true", help="draw keys for the local store")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where they are written")
    arguments = parser.parse_args()
    if not arguments.local_s3:
        _require_the_same_keys(arguments.folder / "aws_credentials")
    for name in write_secrets(arguments.folder, _keys(arguments.local_s3, arguments.folder)):
        sys.stdout.write(f"{arguments.folder / name}\n")


def write_secrets(folder: Path, keys: Callable[[], tuple[str, str, str]]) -> list[str]:
    """Write every secret that is not there yet.

    Args:
        folder: where the files lie.
        keys: gives the bucket's access key, secret key and token ("": none), if they are needed.

    Returns:
        The names of the files that were written.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    folder.chmod(0o700)
    written: list[str] = []

    def kept(name: str, make: Callable[[], str]) -> str:
        path = folder / name
        if not path.exists():
            # Whole or not at all: half a password would be kept for ever.
            draft = folder / f".{name}.{os.getpid()}"
            draft.write_text(make())
            draft.chmod(0o444)
            draft.replace(path)
            written.append(name)
        return path.read_text().strip()

    kept("postgres_password", _password)
    airflow = kept("airflow_database_password", _password)
    mlflow = kept("mlflow_database_password", _password)
    redis, admin = kept("redis_password", _password), kept("mlflow_admin_password", _password)
    made: dict[str, Callable[[], str]] = {
        "airflow_database_url": lambda: f"postgresql+psycopg2://airflow:{airflow}@postgres/airflow",
        "celery_broker_url": lambda: f"redis://:{redis}@redis:6379/0",
        "redis_conf": lambda: f"requirepass {redis}\nappendonly yes\nbind * -::*\ndir /data\n",
        "fernet_key": lambda: base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "api_secret_key": _password,
        "jwt_secret": _password,
        "serving_token": _password,
        "admin_password": _password,
        "mlflow_pgpass": lambda: f"postgres:5432:mlflow:mlflow:{mlflow}\n",
        "mlflow_secret_key": _password,
        "mlflow_auth": lambda: _mlflow_auth(admin),
        "mlflow_credentials": lambda: (
            f"[mlflow]\nmlflow_tracking_username = admin\nmlflow_tracking_password = {admin}\n"
        ),
        "aws_credentials": lambda: _aws_credentials(*keys()),
    }
    for name, make in made.items():
        kept(name, make)
    return written


def _password() -> str:
    return secrets.token_urlsafe(32)


def _mlflow_auth(admin_password: str) -> str:
    return (
        "[mlflow]\n"
        "default_permission = READ\n"
        # Checking a password costs a tenth of a second, and a stage asks hundreds of times. A
        # password that was changed counts after so many seconds.
        "auth_cache_ttl_seconds = 60\n"
        "database_uri = postgresql+psycopg2://mlflow@postgres/mlflow\n"
        "admin_username = admin\n"
        f"admin_password = {admin_password}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )


def _aws_credentials(access_key: str, secret_key: str, token: str) -> str:
    lines = ["[default]", f"aws_access_key_id = {access_key}"]
    lines.append(f"aws_secret_access_key = {secret_key}")
    if token:
        lines.append(f"aws_session_token = {token}")
    return "\n".join(lines) + "\n"


def _require_the_same_keys(path: Path) -> None:
    """Refuse to keep keys in silence where the environment names others."""
    wanted = os.environ.get("AWS_ACCESS_KEY_ID", "")
    if not wanted or not path.exists():
        return
    parser = configparser.RawConfigParser()
    parser.read(path)
    found = parser.get("default", "aws_access_key_id", fallback="")
    if found != wanted:
        raise SystemExit(
            f"{path} holds the access key {found!r}, and AWS_ACCESS_KEY_ID is {wanted!r}; expected "
            f"the same, because a file that is there is kept; delete it to have it written anew, "
            f"or unset AWS_ACCESS_KEY_ID, then give the command again"
        )


def _keys(is_local: bool, folder: Path) -> Callable[[], tuple[str, str, str]]:
    def keys() -> tuple[str, str, str]:
        if is_local:
            return secrets.token_hex(10).upper(), secrets.token_hex(20), ""
        try:
            pair = os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
            return *pair, os.environ.get("AWS_SESSION_TOKEN", "")
        except KeyError as error:
            raise SystemExit(
                f"{error.args[0]} is not set; expected AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY "
                f"of the bucket in the environment, or {folder / 'aws_credentials'}, or --local-s3 "
                f"for the store that compose.yaml brings; set them, then give the command again"
            ) from None

    return keys


if __name__ == "__main__":
    main()
