"""A workspace and a real MLflow with a cycle that is about to take its next stage.

    v1 was promoted by a first cycle, v2 after it; a third cycle, resolved against v2, is tried.

The state before each stage, and what the stage left when nothing disturbed it, are kept, so that a
try begins where the stage begins and ends with a comparison. Not for killing (`killed_stages`).
"""

import contextlib
import hashlib
import os
import re
import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from pipelines import storage
from pipelines.contracts.artifacts import STAGES
from pipelines.contracts.base import digest_of
from pipelines.contracts.files import digest_files, digest_of_files
from pipelines.contracts.judgement import Decision
from pipelines.contracts.run_layout import manifest_uri
from pipelines.registry import reconcile, tracking
from pipelines.stages.runner import read_record
from support import stage_acts
from support.deployments import Deployment
from support.mlflow_server import copy_database, mlflow_server
from support.runs import PLANTED_AS_OF
from support.stage_points import Place, without_random_parts
from support.stage_processes import Act, find_places
from support.worlds import write_planted_world

MODEL = "tried"
TRIED = stage_acts.request_of("tried").run_id
OTHERS = stage_acts.request_of(stage_acts.LATER).run_id
_RULED = {"promote_challenger": Decision.PROMOTE, "alert": Decision.REJECT}
"""Stages for which the verdict is set, so that they have something to do."""
_UNFINISHED = (".scratch-", ".partial", ".writing")
Facts = dict[str, Any]


class StageWorld:
    """Where tries are made: `home` is the deployment's, `server` the folder of MLflow."""

    def __init__(self, folder: Path, server_url: str, url: str) -> None:
        self.home, self._kept = folder / "home", folder / "kept"
        self.server, self._server_url = folder / "server", server_url
        self.runs = self.home / "workspace" / "runs"
        self.scratch = self.home / "tmp" / f"homefeed-scratch-{os.getuid()}"
        log, workspace = str(self.home / "event_log"), storage.to_uri(self.runs.parent)
        extra = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "1"}
        self.deployment = Deployment(self.home, log, workspace, url, MODEL, extra)
        self.undisturbed: dict[str, Facts] = {}
        self.places: dict[str, list[Place]] = {}
        self.run_uri = storage.to_uri(self.runs / TRIED)

    def act_of(self, stage: str) -> Act:
        """Return what runs a stage of the tried cycle."""
        return self.deployment.act_of(stage, "tried", PLANTED_AS_OF)

    def keep(self, name: str) -> None:
        """Keep the state of workspace and registry under a name."""
        kept = self._kept / name
        shutil.copytree(self.home, kept / "home")
        shutil.copytree(self.server / "artifacts", kept / "artifacts")
        copy_database(self.server / "mlflow.db", kept / "mlflow.db")

    def restore(self, name: str) -> None:
        """Bring the state back that was kept under a name; the server goes on running."""
        kept = self._kept / name
        for folder, source in (
            (self.home, kept / "home"),
            (self.server / "artifacts", kept / "artifacts"),
        ):
            shutil.rmtree(folder)
            shutil.copytree(source, folder)
        copy_database(kept / "mlflow.db", self.server / "mlflow.db")

    def set_verdict_for(self, stage: str) -> None:
        """Give a stage that obeys the verdict one on which it has something to do."""
        if stage in _RULED:
            self.deployment.must(partial(stage_acts.rule, self.run_uri, _RULED[stage]))

    def is_published(self, stage: str) -> bool:
        return storage.exists(manifest_uri(self.run_uri, stage))

    def facts(self, stage: str) -> Facts:
        """Return all that a stage has left, without what each attempt draws anew."""
        return {
            "artifact": self.artifact(stage),
            "files": self._files(),
            "content": self._content(),
            "mlflow": facts_of_mlflow(self.server),
        }

    def artifact(self, stage: str) -> str:
        """Return what a stage has published, without its random parts."""
        artifact = read_record(self.run_uri, stage).artifact
        for told in ("alert", "outcome"):  # Which model served meanwhile is not the cycle's.
            if artifact.get(told):
                artifact[told].pop("serves")
        return without_random_parts(str(artifact))

    def _files(self) -> Counter[str]:
        paths = (str(path.relative_to(self.home)) for path in self.home.rglob("*"))
        # A killed attempt to set the alias stays on record: its request may arrive late.
        left_out = OTHERS, ".attempt-"
        return Counter(
            without_random_parts(path) for path in paths if not any(n in path for n in left_out)
        )

    def _content(self) -> dict[str, str]:
        """Return digests of what later stages and servers read: snapshots and bundles."""
        found = [*self.home.glob("workspace/snapshots/[!.]*/"), *self.runs.glob("*/*/*/bundle")]
        folders = {path.relative_to(self.home).as_posix(): path for path in found if path.is_dir()}
        return {
            without_random_parts(name): digest_of(
                [[file.path, file.sha256] for file in digest_files(path)]
            )
            for name, path in folders.items()
        }

    def assert_undisturbed(self, stage: str, story: str, names: Sequence[str] = ()) -> None:
        """Compare what a stage has left, in all or in some respects, with what it leaves else."""
        expected, found = self.undisturbed[stage], self.facts(stage)
        for name in names or expected:
            if found[name] != expected[name]:
                raise AssertionError(f"{story}: {name} is {found[name]}, not {expected[name]}")

    def state(self) -> reconcile.State:
        """Return what alias and history say."""
        client = tracking.connect(self._server_url)
        return reconcile.look(client, storage.to_uri(self.home / "workspace"), MODEL)

    def leftovers(self) -> list[str]:
        """Return what a killed process has left that is no one's any more."""
        found = (path for path in self.home.rglob("*") if path != self.scratch)  # which stays
        paths = [str(path.relative_to(self.home)) for path in found]
        return [
            path
            for path in paths
            if path.startswith("tmp/")
            or any(mark in path for mark in _UNFINISHED)
            or Path(without_random_parts(path)).name.endswith(".*")
        ]

    def living(self, wait_s: float = 10.0) -> list[int]:
        """Return the processes that were started for this world and do not end."""
        deadline = time.monotonic() + wait_s
        while (found := _processes_of(self.home)) and time.monotonic() < deadline:
            time.sleep(0.05)
        return found


def _processes_of(home: Path) -> list[int]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            is_ours = process.environ().get("HOMEFEED_HOME") == str(home)
            if is_ours and process.status() != psutil.STATUS_ZOMBIE and process.pid != os.getpid():
                found.append(process.pid)
    return found


@contextlib.contextmanager
def stage_world(folder: Path, url_of: Any = contextlib.nullcontext) -> Iterator[StageWorld]:
    """Start MLflow, make the world, and run the tried cycle through once, keeping all on the way.

    Args:
        folder: An empty folder.
        url_of: Gives, in a context, the address by which the deployment reaches a server's address.
    """
    with mlflow_server(folder / "server") as server_url, url_of(server_url) as url:
        world = StageWorld(folder, server_url, url)
        write_planted_world(world.home / "event_log")
        deployment, at = world.deployment, stage_acts.FIRST_AS_OF
        for stage in STAGES[:5]:
            deployment.must(deployment.act_of(stage, "first", at))
        for act in (stage_acts.promote_first, stage_acts.promote_a_twin):
            deployment.must(partial(act, deployment.run_uri("first", at)))
        for stage in STAGES:
            world.set_verdict_for(stage)
            world.keep(stage)
            world.places[stage] = find_places(deployment.where, world.act_of(stage))
            world.undisturbed[stage] = world.facts(stage)
        yield world


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
_SERVES = re.compile(r"[\w.]+ v\d+ \(as_of [\d-]+\) serves since [^<]*")
"""On a verdict page: which model served while it was written is not the cycle's."""
_TIME = re.compile(
    r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?"
    r"|<time .*?</time>"  # on a verdict page: when each part of the cycle ended
)
"""What is measured anew."""


def facts_of_mlflow(server: Path) -> dict[str, list[str]]:
    """Return what the tables and files of a server hold, the alias `champion` left out.

    What every attempt draws anew is left out: ids, times, and what is made of them. So two servers
    on which the same was done are told alike, however often it was interrupted.

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
        text = _SERVES.sub("*", without_random_parts(content.decode()))
        content = _TIME.sub("*", text).encode()
    return hashlib.sha256(content).hexdigest()[:12]


def _rows(database: Path, query: str) -> list[tuple]:
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return list(connection.execute(query))
