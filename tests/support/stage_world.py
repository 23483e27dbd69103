"""A workspace and a real MLflow with a cycle that is about to take its next stage.

    v1 was promoted by a first cycle, v2 after it; a third cycle, resolved against v2, is tried.

The state before each stage, and what the stage left when nothing disturbed it, are kept, so that a
try begins where the stage begins and ends with a comparison. Not for killing (`killed_stages`).
"""

import contextlib
import os
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
from pipelines.contracts.files import digest_files
from pipelines.contracts.judgement import Decision
from pipelines.contracts.run_layout import manifest_uri
from pipelines.registry import reconcile, tracking
from pipelines.stages.runner import read_record
from support import stage_acts
from support.deployments import Deployment
from support.mlflow_facts import facts_of_mlflow
from support.mlflow_server import mlflow_server
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
        _copy_database(self.server / "mlflow.db", kept / "mlflow.db")

    def restore(self, name: str) -> None:
        """Bring the state back that was kept under a name; the server goes on running."""
        kept = self._kept / name
        for folder, source in (
            (self.home, kept / "home"),
            (self.server / "artifacts", kept / "artifacts"),
        ):
            shutil.rmtree(folder)
            shutil.copytree(source, folder)
        _copy_database(kept / "mlflow.db", self.server / "mlflow.db")

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


def _copy_database(source: Path, target: Path) -> None:
    """Copy a database in one transaction, also into one that a server has open."""
    with (
        contextlib.closing(sqlite3.connect(source, timeout=30)) as this,
        contextlib.closing(sqlite3.connect(target, timeout=30)) as that,
    ):
        this.backup(that)


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
