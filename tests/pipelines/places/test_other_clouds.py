"""Google's and Azure's stores go by the same interface; without credentials each says so, in time.

No network is needed: what is asked for credentials last is the machine, which has none.
"""

import os
import subprocess
import sys
import time

import pytest
from obstore.store import AzureStore, GCSStore
from pyarrow import fs

from pipelines.places import stores

GOOGLE = ("gs://bucket/runs/x", "gcs://bucket/runs/x")
AZURE = tuple(f"{scheme}://box@account.dfs.core.windows.net/runs/x" for scheme in ("abfs", "abfss"))
ASK = """
import sys
from datetime import timedelta
from pipelines import storage
from pipelines.contracts.errors import HomefeedError
from pipelines.places import stores
stores._PATIENCE = timedelta(seconds=3)
acts = {"pyarrow": storage.exists, "obstore": storage.look}
try:
    print("done", acts[sys.argv[1]](sys.argv[2]))
except HomefeedError as error:
    print(type(error).__name__, error.exit_code, error)
"""


@pytest.mark.parametrize("uri", [*GOOGLE, *AZURE])
def test_a_uri_leads_both_libraries_to_its_bucket_or_container(uri: str) -> None:
    is_google = uri in GOOGLE
    arrow, path = stores.open_arrow(uri)
    assert isinstance(arrow, fs.GcsFileSystem if is_google else fs.AzureFileSystem)
    store, key = stores.open_conditional(uri, 0)
    assert isinstance(store, GCSStore if is_google else AzureStore)
    assert (path, key) == ("bucket/runs/x" if is_google else "box/runs/x", "runs/x")


@pytest.mark.parametrize("act", ["pyarrow", "obstore"])
@pytest.mark.parametrize("uri", [GOOGLE[0], AZURE[0]])
def test_without_credentials_a_cloud_is_told_what_to_set(uri: str, act: str) -> None:
    left_out = ("GOOGLE", "AZURE", "AWS", "CLOUDSDK")
    environment = {name: v for name, v in os.environ.items() if not name.startswith(left_out)}
    environment |= {"HOME": "/nonexistent", "PATH": "/nonexistent"}
    started = time.monotonic()
    said = subprocess.run(
        [sys.executable, "-c", ASK, act, uri],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env=environment | {"PYTHONPATH": os.pathsep.join(sys.path)},
    ).stdout
    assert said.startswith("TransientStorageError 75 "), said
    name = "GOOGLE_APPLICATION_CREDENTIALS" if uri.startswith("gs") else "AZURE_STORAGE_ACCOUNT_KEY"
    assert uri in said and name in said
    assert time.monotonic() - started < 90
