"""What a real MLflow holds: its tables, and every file below its artifacts, by content.

What every attempt draws anew is left out: ids, times, and what is made of them. So two servers on
which the same was done are told alike, however often it was interrupted. Not for asking MLflow: its
database and folders are read beside it.
"""

import contextlib
import hashlib
import re
import sqlite3
from pathlib import Path

from pipelines.contracts.files import digest_files, digest_of_files
from support.stage_points import without_random_parts

_OF_RUN = "(SELECT value FROM tags t WHERE t.run_uuid = r.run_uuid AND t.key = 'homefeed_run_id')"
_SIDE = "(SELECT value FROM tags t WHERE t.run_uuid = r.run_uuid AND t.key = 'homefeed_side')"
_VALUE = "CASE WHEN key = 'model_digest' THEN '' ELSE value END"
"""That digest covers the ids of MLflow runs. Whether a model has the files of its digest is looked
at; a promotion refuses what is not the verdict's."""
_TABLES = {
    "runs": f"SELECT {_OF_RUN}, {_SIDE}, r.status, r.lifecycle_stage FROM runs r",
    "tags": f"SELECT {_OF_RUN}, {_SIDE}, key, {_VALUE} FROM tags x JOIN runs r USING (run_uuid)",
    "params": f"SELECT {_OF_RUN}, {_SIDE}, key, value FROM params x JOIN runs r USING (run_uuid)",
    # The speed of a training is timed anew.
    "metrics": f"SELECT {_OF_RUN}, {_SIDE}, key, step, "
    "CASE WHEN key LIKE '%_per_s' THEN '' ELSE value END FROM metrics x JOIN runs r "
    "USING (run_uuid)",
    "models": f"SELECT m.name, m.status, {_OF_RUN}, {_SIDE} FROM logged_models m "
    "LEFT JOIN runs r ON r.run_uuid = m.source_run_id",
    "versions": f"SELECT v.name, v.version, v.status, {_OF_RUN}, {_SIDE}, "
    "m.name, m.status, m.source_run_id = v.run_id FROM model_versions v "
    "LEFT JOIN runs r ON r.run_uuid = v.run_id "
    "LEFT JOIN logged_models m ON v.source = 'models:/' || m.model_id",
    "version tags": f"SELECT version, key, {_VALUE} FROM model_version_tags",
    "aliases": "SELECT alias, version FROM registered_model_aliases WHERE alias != 'champion'",
    "outputs": f"SELECT i.source_type, i.destination_type, {_OF_RUN}, {_SIDE} FROM inputs i "
    "LEFT JOIN runs r ON r.run_uuid = i.source_id",
}
_SERVED = (
    "SELECT v.name, v.version, coalesce(m.artifact_location, v.storage_location, v.source), "
    "(SELECT value FROM model_version_tags t WHERE t.name = v.name AND t.version = v.version "
    "AND t.key = 'model_digest') FROM model_versions v "
    "LEFT JOIN logged_models m ON v.source = 'models:/' || m.model_id"
)
_SCHEME = "mlflow-artifacts:/"
_TIME = re.compile(
    r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?"
    # On a verdict page: when each part of the cycle ended, and what it cost.
    r'|<time .*?</time>|(?s:<h2 id="costs">.*?)(?=<h2)'
)
"""What is measured anew."""


def facts_of_mlflow(server: Path) -> dict[str, list[str]]:
    """Return what the tables and files of a server hold, the alias `champion` left out.

    Args:
        server: Folder with `mlflow.db` and `artifacts/`.
    """
    database = server / "mlflow.db"
    tables = {
        name: sorted(without_random_parts(str(row)) for row in _rows(database, query))
        for name, query in _TABLES.items()
    }
    return tables | {"files": _files(server), "served": _served(server)}


def _served(server: Path) -> list[str]:
    """Return of each version whether its files are those that its tag names."""
    found = []
    for name, version, place, tag in _rows(server / "mlflow.db", _SERVED):
        folder = server / "artifacts" / str(place).removeprefix(_SCHEME)
        digest = digest_of_files(digest_files(folder)) if folder.is_dir() else "nothing"
        found.append(f"{name} v{version} has {'the' if digest == tag else 'other'} files")
    return sorted(found)


def _files(server: Path) -> list[str]:
    paths = (path for path in (server / "artifacts").rglob("*") if path.is_file())
    return sorted(f"{_name(path, server)} {_digest(path)}" for path in paths)


def _name(path: Path, server: Path) -> str:
    return without_random_parts(path.relative_to(server).as_posix())


def _digest(path: Path) -> str:
    """Return the digest of a file's content; of a text, without ids and times."""
    content = path.read_bytes()
    with contextlib.suppress(UnicodeDecodeError):
        content = _TIME.sub("*", without_random_parts(content.decode())).encode()
    return hashlib.sha256(content).hexdigest()[:12]


def _rows(database: Path, query: str) -> list[tuple]:
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return list(connection.execute(query))
