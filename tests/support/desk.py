"""One registered model with its cycles, from registering to rolling back, over any MLflow store.

The fixtures give one over MLflow's store in this process, where no server is needed.
"""

import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipelines.contracts.artifacts import ModelRef, ResolvedRun, Standing
from pipelines.contracts.config import RunConfig
from pipelines.contracts.judgement import Decision, Judgement, Promotion
from pipelines.recipes import smoke
from pipelines.registry import history, moves, registry, tracking
from pipelines.registry.evidence import find_standing
from pipelines.registry.history import Entry, History, Move, Recipes, recipe_of
from pipelines.registry.reconcile import State, look
from pipelines.settings import Settings
from support.mlflow_server import copy_database
from support.registered import NO_ANCHOR, NOW, challenger_of, judgement_of, register_bundle
from support.runs import make_run, save_artifact, save_run

DAY = datetime(2017, 6, 12, tzinfo=UTC)
CODE = "c" * 64


def at(days: float) -> datetime:
    """Return an instant so many days after the first move."""
    return NOW + timedelta(days=days)


class Desk:
    """A registered model of its own, and what cycles and people do to it."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.client = folder, tracking.connect(url)
        self.name = f"ranker_{folder.name}"
        first = make_run(folder, registered_model=self.name)
        self.where = (first.workspace_uri, self.name)
        self.settings = Settings(
            workspace=first.workspace_uri, tracking_uri=url, registered_model=self.name
        )

    def cycle(self, number: int, config: RunConfig | None = None, **more: Any) -> ResolvedRun:
        """Resolve a cycle against what serves now; each is two weeks after the one before."""
        places = {"registered_model": self.name, "experiment": self.name, "code_digest": CODE}
        fields = {"tracking_uri": self.client.tracking_uri, "champion": self.champion} | places
        fields |= {"run_id": f"cycle-{number}"} | more
        as_of = fields.pop("as_of", DAY + timedelta(days=14 * number))
        return make_run(self.folder, config, as_of, **fields)

    def register(self, run: ResolvedRun, **more: Any) -> ModelRef:
        """Register a challenger with the tags that `train_challenger` gives it."""
        model = register_bundle(self.client, run, self.folder, **more)
        tags = {"homefeed_run_id": run.run_id, "homefeed_side": "challenger", "code_digest": CODE}
        registry.tag_version(self.client, model, tags)
        return model

    def promote(
        self,
        run: ResolvedRun,
        model: ModelRef | None = None,
        days: float = 0,
        judgement: Judgement | None = None,
        **judged: Any,
    ) -> Promotion:
        """Do the promotion's stage; a model is registered, and judged PROMOTE, if none is given."""
        model = model or self.register(run)
        if judgement is None:
            judgement = judgement_of(run, model, judged.pop("decision", Decision.PROMOTE))
            verdict = judgement.verdict.model_copy(update=judged)
            judgement = judgement.model_copy(update={"verdict": verdict})
        made = challenger_of(model)
        return moves.promote_challenger(run, made, NO_ANCHOR, judgement, at(days))

    def promote_two(self) -> tuple[ModelRef, ModelRef]:
        """Let two cycles promote, the second one a day later; return their models."""
        first, second = (
            self.promote(self.cycle(number), days=number).champion_after for number in range(2)
        )
        assert first is not None and second is not None
        return first, second

    def rollback(
        self, to: str | None = None, days: float = 9, why: str = "hides rose", away: str = ""
    ) -> Move:
        """Roll back as a person does."""
        return moves.rollback(self.client, self.settings, to, at(days), why, away or None)

    def force(self, run: ResolvedRun, model: ModelRef, days: float, why: str) -> Move:
        """Promote a model in spite of its verdict."""
        return moves.force(self.client, run, model, at(days), why)

    def accept(self, run: ResolvedRun) -> Recipes:
        """Make a cycle's recipe the accepted one."""
        return moves.accept_recipe(self.where, recipe_of(run), at(10), "agreed on")

    def release(self, digest: str = "", why: str = "agreed on") -> Recipes:
        """Release a recipe, the first one on hold if none is named."""
        digest = digest or self.history.recipes.held[0].recipe.digest
        return moves.release_recipe(self.where, digest, at(10), why)

    def point_at(self, version: str) -> None:
        """Move the alias by hand; '' deletes it."""
        if version:
            self.client.set_registered_model_alias(self.name, registry.CHAMPION, version)
        else:
            self.client.delete_registered_model_alias(self.name, registry.CHAMPION)

    def mend(
        self, restores: bool = False, to: str | None = None, why: str = "somebody looked"
    ) -> Move | None:
        """Carry out what `history repair` would; return the move that it made."""
        before, to = self.history.last, self.state.recorded if restores else to
        moves.repair(self.client, self.where, at(30), why, to)
        return self.history.last if self.history.last != before else None

    def steps(self, restores: bool = False) -> list[str]:
        """Return what `history repair` would do."""
        to = self.state.recorded if restores else None
        return list(moves.plan_repair(self.client, self.state, to)[0])

    @property
    def champion(self) -> ModelRef | None:
        """What serves."""
        return registry.read_champion(self.client, self.name)

    @property
    def state(self) -> State:
        """What registry and history say."""
        return look(self.client, *self.where)

    @property
    def history(self) -> History:
        """The log."""
        return history.load(*self.where)

    def kinds(self) -> list[str]:
        """Return the kinds of all entries."""
        return [entry.kind for entry in self.history.entries]

    def standing(self, run: ResolvedRun) -> Standing:
        """Return what is on record of recipes for a cycle that begins now."""
        return find_standing(self.history, self.champion, run.config, ())


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store's file with nothing in it, which takes MLflow longer to make than to copy."""
    file = tmp_path_factory.mktemp("empty") / tracking.OWN_REGISTRY
    tracking.connect(f"sqlite:///{file}")
    return file


@pytest.fixture(scope="module")
def store_uri(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[str]:
    """A store in a file; what MLflow keeps of runs lies beside it, in the working directory."""
    folder, before = tmp_path_factory.mktemp("store"), os.getcwd()
    shutil.copy(empty_store, folder)
    uri = f"sqlite:///{folder / tracking.OWN_REGISTRY}"
    os.chdir(folder)
    try:
        with tracking.address_of_process(uri):
            yield uri
    finally:
        os.chdir(before)


@pytest.fixture
def desk(tmp_path: Path, store_uri: str) -> Desk:
    """A registered model of its own."""
    return Desk(tmp_path, store_uri)


@pytest.fixture(scope="module")
def promoted(
    tmp_path_factory: pytest.TempPathFactory, store_uri: str
) -> tuple[Desk, list[tuple[Path, Path]]]:
    """A model of which two cycles have promoted a version each, and where its files are kept."""
    desk, kept = Desk(tmp_path_factory.mktemp("two"), store_uri), tmp_path_factory.mktemp("kept")
    desk.promote_two()
    copied = [(each, kept / each.name) for each in (desk.folder, *Path.cwd().iterdir())]
    for place, copy in copied:
        shutil.copytree(place, copy) if place.is_dir() else shutil.copy(place, copy)
    return desk, copied


@pytest.fixture
def two(promoted: tuple[Desk, list[tuple[Path, Path]]]) -> Desk:
    """The model as it was when two had been promoted, whatever other tests did to it."""
    desk, copied = promoted
    for place, copy in copied:
        if place.is_dir():
            shutil.rmtree(place)
            shutil.copytree(copy, place)
            continue
        # A connection of MLflow's may be open: SQLite itself puts the old pages into its file.
        copy_database(copy, place)
    return desk


def record_move(
    workspace_uri: str,
    entry: Entry,
    name: str = "test_ranker",
    recipes: Recipes | None = None,
    is_followed: bool = True,
) -> History:
    """Create the next entry of a history, as if the alias had followed it; return the history."""
    known = history.load(workspace_uri, name)
    entry = entry.model_copy(update={"recipes": recipes or known.recipes})
    known = history.create(known, entry)
    if is_followed and isinstance(entry, Move):
        history.mark_followed(known, known.moves[-1], was_set_again=False)
    return history.load(workspace_uri, name)


def save_judged(run: ResolvedRun, model: ModelRef) -> Judgement:
    """Write the manifests of a cycle that was judged PROMOTE; return the judgement."""
    judgement = judgement_of(run, model)
    save_run(run)
    save_artifact(run, "train_challenger", challenger_of(model))
    save_artifact(run, "train_anchor", NO_ANCHOR)
    save_artifact(run, "compare_with_champion", judgement)
    return judgement


def variant(num_epochs: int) -> RunConfig:
    """Return the smoke recipe with another number of epochs."""
    training = smoke().training.model_copy(update={"num_epochs": num_epochs})
    return smoke().model_copy(update={"training": training})
