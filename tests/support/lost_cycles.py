"""A judged cycle whose challenger lost for a planted cause, without a registry or a gate.

Both sides are trained as an explanation trains its settings, and their comparison, the records of
the cycle and the champion's entry in the history are what a cycle leaves.
"""

from datetime import datetime
from pathlib import Path
from typing import Any

from pipelines import storage
from pipelines.contracts.artifacts import ModelRef, ResolvedRun, Snapshot
from pipelines.contracts.code_identity import code_digest
from pipelines.contracts.config import RunConfig
from pipelines.contracts.files import digest_files, digest_of_files
from pipelines.contracts.judgement import Decision
from pipelines.contracts.reasons import BaselineKind
from pipelines.contracts.schemas import SPLIT_HOLDOUT
from pipelines.explain.parts import Setting
from pipelines.explain.training import Trainer
from pipelines.registry.history import Move, Recipe
from pipelines.snapshot.build import write_snapshot
from support.desk import record_move
from support.holdouts import level_of
from support.judgements import make_judgement, make_model
from support.registered import challenger_of
from support.runs import make_run, save_artifact, save_run
from training.bundle.score_split import score_split
from training.data.reader import load_rows
from validation.model_gate.comparison import ComparedModels, Holdout, compare

NAME = "test_ranker"


def setting(recipe: RunConfig, as_of: datetime, code: str = "") -> Setting:
    return Setting(recipe, as_of, code or code_digest())


def begin(
    folder: Path, ours: Setting, theirs: Setting, **more: Any
) -> tuple[ResolvedRun, Snapshot]:
    """Resolve a cycle over `<folder>/event_log` whose champion is the other side, and build it."""
    run, snapshot = _resolve(folder, ours, theirs, **more)
    _record_champion(run, theirs)
    return run, snapshot


def _resolve(
    folder: Path, ours: Setting, theirs: Setting, **more: Any
) -> tuple[ResolvedRun, Snapshot]:
    about = {"champion": make_model("3", theirs.as_of), "code_digest": ours.code} | more
    run = save_run(make_run(folder, ours.recipe, ours.as_of, **about))
    snapshot = write_snapshot(run)
    save_artifact(run, "build_snapshot", snapshot)
    return run, snapshot


def _record_champion(run: ResolvedRun, theirs: Setting) -> None:
    config = theirs.recipe.model_dump(mode="json")
    recipe = Recipe(config=config, code_digest=theirs.code, run_uri=None)
    came = {"moved_at": theirs.as_of, "kind": "promotion", "reason": "won", "previous": None}
    champion = make_model("3", theirs.as_of)
    record_move(run.workspace_uri, Move(model=champion, recipe=recipe, **came), NAME)


def save_challenger(run: ResolvedRun, bundle_dir: Path) -> ModelRef:
    """Write the manifest of the challenger's training, whose bundle lies there."""
    digest = digest_of_files(digest_files(bundle_dir))
    model = make_model("4", run.as_of).model_copy(update={"bundle_digest": digest})
    made = challenger_of(model).model_copy(update={"bundle_uri": storage.to_uri(bundle_dir)})
    save_artifact(run, "train_challenger", made)
    return model


def lose(folder: Path, *settings: Setting, num_champions: int = 1) -> ResolvedRun:
    """Return the run of a cycle that compared the best champion with the worst challenger.

    The first settings are those of champions.
    """
    ours, theirs = settings[num_champions:], settings[:num_champions]
    run, snapshot = _resolve(folder, ours[0], theirs[0])
    rows = load_rows(snapshot, storage.local_path(snapshot.uri), SPLIT_HOLDOUT)
    holdout = Holdout(rows, run.config.features.heads, run.config.model_gate)
    trainer = Trainer(run, snapshot, run.run_uri)
    made = [trainer.train(each, f"{run.run_uri}/{n}") for n, each in enumerate(settings)]
    scores = [
        score_split(storage.local_path(bundle), of, storage.local_path(of.uri), SPLIT_HOLDOUT)
        for bundle, of in made
    ]
    levels = [level_of(holdout, each) for each in scores]
    best = max(range(num_champions), key=levels.__getitem__)
    worst = min(range(num_champions, len(settings)), key=levels.__getitem__)
    _record_champion(run, settings[best])
    run = save_run(run.model_copy(update={"config": settings[worst].recipe}))
    model = save_challenger(run, storage.local_path(made[worst][0]))
    models = ComparedModels(snapshot.holdout, BaselineKind.CHAMPION, model, run.champion)
    comparison = compare(holdout, scores[worst], scores[best], models).comparison
    judgement = make_judgement(Decision.REJECT).model_copy(update={"comparison": comparison})
    save_artifact(run, "compare_with_champion", judgement)
    return run


def with_seed(recipe: RunConfig, seed: int) -> RunConfig:
    training = recipe.training.model_copy(update={"seed": seed})
    return recipe.model_copy(update={"training": training})


def changed(recipe: RunConfig, section: str, **values: Any) -> RunConfig:
    """Return a recipe with other values of one section."""
    part = getattr(recipe, section).model_copy(update=values)
    return recipe.model_copy(update={section: part})
