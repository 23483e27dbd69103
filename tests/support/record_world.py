"""A workspace and a registry with three cycles, and who may do what to them: for tests of faults.

v1 serves, promoted by a first cycle; a second cycle trained v2 and may promote it; a third one
trained v3 at the same time, against the same champion.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pipelines import storage
from pipelines.contracts import files
from pipelines.contracts.artifacts import ModelRef, ResolvedRun
from pipelines.preconditions.cycle import require_record
from pipelines.registry import moves, reconcile, registry
from pipelines.settings import Settings
from pipelines.stages.runner import run_stage
from support.desk import save_judged
from support.fake_registry import FakeRegistry, asked_by_all
from support.judgements import make_model
from support.runs import make_run

NAME = "test_ranker"
FIRST = datetime(2017, 3, 2, tzinfo=UTC)


class Acting:
    """Cycles and people who act upon one workspace and one registry."""

    def __init__(self, folder: Path, client: FakeRegistry, workspace_uri: str = "") -> None:
        self.registry: Any = client
        self.folder = folder
        self.workspace_uri = workspace_uri or storage.to_uri(folder / "workspace")
        self.where = (self.workspace_uri, NAME)
        self.settings = Settings(workspace=self.workspace_uri, registered_model=NAME)
        self.models: dict[str, ModelRef] = {}
        self.runs: dict[str, ResolvedRun] = {}

    def tick(self) -> datetime:
        """Return the time of an act."""
        raise NotImplementedError

    def save_cycle(self, model: ModelRef, champion: ModelRef | None, **more: Any) -> ResolvedRun:
        """Write the manifests of a cycle that trained a model, which is judged PROMOTE."""
        places = {"workspace_uri": self.workspace_uri, "champion": champion} | more
        run = make_run(self.folder, as_of=model.as_of, **places)
        self.models[model.version], self.runs[model.version] = model, run
        save_judged(run, model)
        return run

    def rollback(self, to_version: str | None = None) -> None:
        moves.rollback(self.registry, self.settings, to_version, self.tick(), "hides rose")

    def force(self, number: str) -> None:
        run, model = self.runs[number], self.models[number]
        moves.force(self.registry, run, model, self.tick(), "we want it")

    def repair(self, restores: bool = False, to: str | None = None) -> None:
        """Record what the registry says, or make it say what is on record, or a version."""
        to = self.look().recorded if restores else to
        moves.repair(self.registry, self.where, self.tick(), "somebody looked", to)

    def look(self) -> reconcile.State:
        return reconcile.look(self.registry, *self.where)


class World(Acting):
    """Two cycles that may promote, a person, and what they all act upon."""

    def __init__(self, folder: Path, client: FakeRegistry, workspace_uri: str = "") -> None:
        super().__init__(folder, client, workspace_uri)
        self.clock = datetime(2026, 3, 1, tzinfo=UTC)
        registry.ensure_registered_model(self.registry, NAME, self.workspace_uri)
        champion = None
        for number in range(1, 4):
            model = make_model(str(number), FIRST + timedelta(days=14 * min(number, 2)))
            model = self.registry.add(model.model_copy(update={"model_digest": "d" * 64}))
            self.save_cycle(model, champion, run_id=f"cycle-{number}")
            if champion is None:
                self.promote("1")
                champion = model

    def tick(self) -> datetime:
        self.clock += timedelta(hours=1)
        return self.clock

    def promote(self, number: str) -> None:
        run_stage("promote_challenger", self.runs[number].run_uri)

    def resolve(self) -> None:
        require_record(self.registry, *self.where)

    def leftovers(self) -> list[str]:
        """Scratch folders and unfinished files, with their folders; a store has none."""
        if not storage.is_local(self.workspace_uri):
            return []
        top = storage.local_path(self.workspace_uri)
        return [
            path.relative_to(top).as_posix()
            for path in top.rglob(".*")
            if path.name.startswith(".scratch-") or files._UNFINISHED.fullmatch(path.name)
        ]


@contextmanager
def record_world(folder: Path, workspace_uri: str = "") -> Iterator[World]:
    """Give a world whose registry is asked by everything that asks MLflow.

    Args:
        folder: A new folder, for the registry.
        workspace_uri: Where the workspace lies; in the folder if empty.
    """
    folder.mkdir()
    with asked_by_all(FakeRegistry(folder / "registry.json")) as client:
        yield World(folder, client, workspace_uri)
