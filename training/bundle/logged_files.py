"""Fetches the files of a model from MLflow, one by one.

A model has about a hundred files: fetched by one call, one lost answer would spoil all of them. For
the registry, which fetches versions, and for the retry of a registration. This module imports
nothing heavy, because a light task fetches too. Tested in
tests/pipelines/registry/test_lost_answers.py.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from pipelines.contracts.mlflow_errors import ask_again

_NUM_AT_A_TIME = 8


def fetch(source: str, folder: Path, tracking_uri: str) -> bool:
    """Fetch all that is at an artifact URI into a folder, and return whether there was any.

    Args:
        source: Where the files lie; a logged model's own URI would be looked up at the server that
            the process knows, which may be another one.
        folder: Where they are put.
        tracking_uri: The server that is asked for them.

    Raises:
        MlflowException: as MLflow raises; outages are asked about again first.
    """
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    repository = get_artifact_repository(source, tracking_uri=tracking_uri)
    paths: list[str] = []
    folders: list[str | None] = [None]
    with ThreadPoolExecutor(_NUM_AT_A_TIME) as pool:
        while folders:
            asks = [partial(repository.list_artifacts, each) for each in folders]
            found = [entry for entries in pool.map(ask_again, asks) for entry in entries]
            folders = [entry.path for entry in found if entry.is_dir]
            paths += [entry.path for entry in found if not entry.is_dir]
        wanted = [partial(repository.download_artifacts, path, str(folder)) for path in paths]
        list(pool.map(ask_again, wanted))
    return bool(paths)
