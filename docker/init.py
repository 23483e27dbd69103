"""What a stack needs before its services start; the init job of compose.yaml. Repeatable.

Brings the database to this Airflow's version, makes the first user, and tries the bucket: a store
without conditional writes is refused here, before anything is kept there.
"""

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

STORE_COMES_UP_WITHIN_S = 90


def main() -> None:
    """Prepare database, user and bucket, or end with what is wrong."""
    subprocess.run(["airflow", "db", "migrate"], check=True)
    make_first_user(os.environ["HOMEFEED_ADMIN"])
    try_store()


def make_first_user(name: str) -> None:
    """Make a user of the role Admin, unless there is one of that name; its password stays."""
    from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder

    with get_application_builder() as builder:
        manager = builder.sm
        if manager.find_user(username=name):
            return
        password = Path("/run/secrets/admin_password").read_text().strip()
        made = manager.add_user(
            name, name, "", f"{name}@localhost", manager.find_role("Admin"), password=password
        )
        if not made:
            raise SystemExit(f"Airflow made no user {name}; its log above says why")


def try_store() -> None:
    """Make the bucket where that was asked for, and see that a file is created only once there."""
    from pipelines import deletion, storage
    from pipelines.contracts.errors import HomefeedError
    from pipelines.settings import Settings

    workspace_uri = Settings().workspace_uri
    if os.environ.get("HOMEFEED_MAKE_BUCKET"):
        _patiently(lambda: _make_bucket(urlsplit(workspace_uri).netloc))
    try:
        first_look = storage.join(workspace_uri, f".stack-{uuid.uuid4().hex}")
        storage.write_new(first_look, b"")
        deletion.remove(first_look)
        sys.stdout.write(f"{workspace_uri} honours conditional writes\n")
    except HomefeedError as error:
        raise SystemExit(str(error)) from None


def _make_bucket(name: str) -> None:
    from pyarrow import fs

    store = fs.S3FileSystem(
        endpoint_override=_endpoint(),
        region=os.environ["AWS_REGION"],
        allow_bucket_creation=True,
    )
    store.create_dir(name)


def _endpoint() -> str:
    if endpoint := os.environ.get("AWS_ENDPOINT_URL"):
        return endpoint
    raise SystemExit(
        "HOMEFEED_MAKE_BUCKET is set and AWS_ENDPOINT_URL is not; expected the address of the "
        "store that the bucket is to be made in; copy docker/local-s3.env to docker/.env for the "
        "store of the profile local-s3, or make the bucket and unset HOMEFEED_MAKE_BUCKET"
    )


def _patiently(attempt: Callable[[], None]) -> None:
    deadline = time.monotonic() + STORE_COMES_UP_WITHIN_S
    while True:
        try:
            return attempt()
        except OSError as error:
            if time.monotonic() > deadline:
                raise SystemExit(
                    f"no bucket was made within {STORE_COMES_UP_WITHIN_S} s: {error}; expected "
                    f"the store at {_endpoint()} to answer and to know the keys of "
                    f"docker/secrets/aws_credentials; look at its log (`docker compose logs s3`)"
                ) from None
            time.sleep(1)


if __name__ == "__main__":
    main()
