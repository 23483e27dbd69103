"""Cycles with three models: a recipe on trial, the accepted recipe made fresh, and the champion."""

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from pipelines import storage
from pipelines.contracts.artifacts import STAGES as ALL
from pipelines.contracts.artifacts import (
    AnchorWhy,
    Challenger,
    DataReport,
    FreshAnchor,
    ResolvedRun,
    RunRequest,
    Snapshot,
    Standing,
)
from pipelines.contracts.code_identity import (
    code_digest,
)
from pipelines.contracts.config import NumericFeature, RunConfig
from pipelines.contracts.errors import HomefeedError, SnapshotDamagedError, TransientStorageError
from pipelines.contracts.judgement import Judgement, Promoted, Promotion
from pipelines.contracts.reasons import BaselineKind
from pipelines.contracts.run_layout import manifest_uri
from pipelines.recipes import RECIPES, smoke
from pipelines.recipes.text import differences
from pipelines.registry import accepted_code, evidence, history, moves, tracking
from pipelines.registry.history import Recipe
from pipelines.settings import Settings
from pipelines.stages import train
from pipelines.stages.runner import read_artifact, run_stage, start_run
from support.judgements import CHAMPION
from support.older_code import EQUAL, FORWARD, KERNEL, OTHER, SCHEMA, Change, keep_older_code
from support.runs import make_run
from support.serving import wait_until
from support.tiny_log import TINY_AS_OF, tiny_config, write_tiny_log
from support.worlds import PLANTED_START, write_planted_world

NUM_DAYS = 90
CHAMPION_DAY = PLANTED_START + timedelta(days=NUM_DAYS - 28)
STAGES = ALL[1:7]


def whole(test: Callable[..., None]) -> Callable[..., None]:
    """Mark a test that looks at whole cycles."""
    return pytest.mark.services(pytest.mark.slow(test))


def roomy() -> RunConfig:
    """The recipe that is accepted first, with margins that so few users can show to be held."""
    margins = {"margin": 0.05, "recipe_margin": 0.05, "segment_margin": 0.3}
    gate = smoke().model_gate.model_copy(update=margins)
    return smoke().model_copy(update={"recipe": "roomy", "model_gate": gate})


def blind() -> RunConfig:
    """A recipe that is worse: it never sees the sequence, which alone predicts repins here."""
    model = smoke().model.model_copy(
        update={"use_sequence_encoder": False, "use_sequence_matches": False}
    )
    return roomy().model_copy(update={"recipe": "blind", "model": model})


def run_cycle(settings: Settings, recipe: str, as_of: datetime) -> ResolvedRun:
    asked = {"recipe": recipe, "as_of": as_of, "now": datetime(2026, 1, 1, tzinfo=UTC)}
    asked |= {"may_promote": True, "num_devices": 1, "trigger": "three models"}
    run = start_run(RunRequest(**asked), settings)
    for name in STAGES:
        if name == "train_anchor" and run.standing.anchor is not None:
            kill_in_the_middle(run)
        run_stage(name, run.run_uri)
    return run


def kill_in_the_middle(run: ResolvedRun) -> None:
    """Kill the training of the anchor, as if the machine had lost power."""
    command = [sys.executable, "-m", "pipelines.cli", "stage", "train_anchor", run.run_uri]
    process = subprocess.Popen(command)
    progress = storage.local_path(run.run_uri) / "train_anchor" / "training" / "metrics.jsonl"
    wait_until(progress.exists, 120)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not storage.exists(manifest_uri(run.run_uri, "train_anchor"))


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, tracking_uri: str) -> Settings:
    home = tmp_path_factory.mktemp("three")
    write_planted_world(home / "event_log", num_users=240, num_days=NUM_DAYS)
    return Settings(
        home=str(home), tracking_uri=tracking_uri, registered_model="three", experiment="three"
    )


@pytest.fixture(scope="module")
def cycles(settings: Settings) -> tuple[ResolvedRun, ResolvedRun]:
    """Two cycles, the second with a worse recipe."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(RECIPES, "roomy", roomy)
        patch.setitem(RECIPES, "blind", blind)
        first = run_cycle(settings, "roomy", CHAMPION_DAY)
        second = run_cycle(settings, "blind", CHAMPION_DAY + timedelta(days=28))
    return first, second


@whole
def test_a_worse_recipe_gives_way_to_the_accepted_one_made_fresh(
    cycles: tuple[ResolvedRun, ResolvedRun], tracking_uri: str
) -> None:
    first, run = cycles
    assert read_artifact(first.run_uri, "train_anchor", FreshAnchor).trained is None
    assert read_artifact(first.run_uri, "promote_challenger", Promotion).is_promoted
    assert run.standing.anchor == first.config == roomy()
    fresh = read_artifact(run.run_uri, "train_anchor", FreshAnchor)
    challenger = read_artifact(run.run_uri, "train_challenger", Challenger)
    judgement = read_artifact(run.run_uri, "compare_with_champion", Judgement)
    promotion = read_artifact(run.run_uri, "promote_challenger", Promotion)
    assert fresh.trained is not None and judgement.anchor is not None
    assert judgement.verdict.promoted is Promoted.ANCHOR, judgement.verdict.reasons
    assert promotion.champion_after == fresh.trained.model != challenger.model
    assert f"In its place {fresh.trained.model.label} is promoted" in judgement.verdict.reasons[1]
    alone = read_artifact(first.run_uri, "compare_with_champion", Judgement).serving
    beside = judgement.serving.wall_ratio, judgement.anchor.serving.wall_ratio
    assert alone.wall_ratio is None and all(beside)

    found = judgement.comparison, judgement.anchor.recipe, judgement.anchor.freshness
    assert found[1].baseline_kind is BaselineKind.ANCHOR
    assert len({each.holdout_digest for each in found}) == 1
    [theta, delta, phi] = [each.find_pooled(each.target_metric) for each in found]
    assert delta.value < 0
    # The three are of three models: each follows from the other two.
    assert 1 + theta.value == pytest.approx((1 + delta.value) * (1 + phi.value))

    client: MlflowClient = tracking.connect(tracking_uri)
    by_alias = client.get_model_version_by_alias("three", "anchor")
    assert by_alias.version == fresh.trained.model.version
    assert by_alias.tags["homefeed_side"] == "anchor"
    experiment = client.get_experiment_by_name("three").experiment_id
    mine = f"tags.homefeed_run_id = '{run.run_id}'"
    runs = {r.data.tags["homefeed_side"]: r for r in client.search_runs([experiment], mine)}
    assert runs.keys() == {"challenger", "baseline", "anchor"}
    # What serves, also where it came as the anchor, has a page, its recipe, and its part of a
    # comparison; what differs in MLflow is what `homefeed recipe diff` tells.
    recipes = {side: each.data.tags["recipe"] for side, each in runs.items()}
    assert recipes == {"challenger": "blind", "anchor": "roomy", "baseline": "roomy"}
    assert by_alias.tags["verdict"] == "PROMOTE" and by_alias.description
    mine, same, theirs = (runs[each].data.params for each in ("challenger", "anchor", "baseline"))
    assert same == theirs
    differing = {name for name, _ in mine.items() ^ theirs.items()}
    assert differing == {each.split(": ")[0] for each in differences(first.config, run.config)}
    page = storage.local_path(judgement.report_uri).read_text()
    assert (
        "What is the change of recipe or code worth?" in page
        and "What is fresh data worth?" in page
    )


@whole
def test_a_worse_recipe_does_not_become_the_anchor_and_leaves_its_evidence(
    cycles: tuple[ResolvedRun, ResolvedRun],
) -> None:
    first, run = cycles
    known = history.load(run.workspace_uri, "three")
    assert [move.kind for move in known.moves] == ["promotion", "promotion"]
    accepted = [entry.recipes.accepted for entry in known.entries]
    assert [each.digest for each in accepted if each] == [first.config.recipe_digest] * 2
    assert known.recipes.accepted.parse() == known.moves[1].recipe.parse() == roomy()
    assert known.moves[1].reason.startswith("The accepted recipe made fresh, in place of the chal")
    kept = storage.list_names(
        accepted_code.place_of(run.workspace_uri, known.recipes.accepted.code_digest)
    )
    assert len(kept) == 2 and accepted_code.PINS in kept
    [_, judged] = evidence.read(evidence.pin(run.workspace_uri, "three", but="nothing"))
    assert {change.pair for change in judged.changes} == {"theta", "delta", "phi"}
    assert judged.challenger_recipe == blind().recipe_digest
    groups, columns = evidence.read_influences(run, judged)
    assert set(columns) == {change.column for change in judged.changes}
    assert all(len(column) == len(groups) for column in columns.values())


@whole
@pytest.mark.parametrize("changes", [(EQUAL,), (OTHER, KERNEL), (FORWARD,)])
def test_a_change_of_code_is_judged_by_the_accepted_code_made_fresh(
    cycles: tuple[ResolvedRun, ResolvedRun],
    settings: Settings,
    tmp_path: Path,
    changes: tuple[Change, ...],
) -> None:
    first, second = cycles
    accepted = keep_older_code(first.workspace_uri, tmp_path, *changes)
    recipe = Recipe(config=roomy().model_dump(mode="json"), code_digest=accepted, run_uri=None)
    where = (first.workspace_uri, "three")
    moves.accept_recipe(where, recipe, datetime.now(UTC), "of other code")
    options = {"recipe": "roomy", "trigger": f"other code {changes}", "may_promote": False}
    asked = second.to_request().model_copy(update=options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(RECIPES, "roomy", roomy)
        run = start_run(asked, settings)
    assert run.standing.anchor_code_digest == accepted
    for name in STAGES[:5]:
        if name == "train_anchor" and OTHER in changes:
            kill_in_the_middle(run)
        run_stage(name, run.run_uri)

    fresh = read_artifact(run.run_uri, "train_anchor", FreshAnchor)
    assert fresh.trained is not None and fresh.code_digest == accepted
    snapshot = read_artifact(run.run_uri, "build_snapshot", Snapshot)
    assert fresh.snapshot is not None
    assert (fresh.snapshot.digest == snapshot.digest) is (KERNEL not in changes)
    judgement = read_artifact(run.run_uri, "compare_with_champion", Judgement)
    pinned = evidence.pin(run.workspace_uri, "three", but="nothing")
    [judged] = [each for each in evidence.read(pinned) if each.run_id == run.run_id]
    assert judged.codes == (code_digest(), "" if FORWARD in changes else accepted)
    if EQUAL in changes:
        assert judgement.anchor is None and "changes nothing, and is" in judgement.anchor_note
        is_promoted = judgement.verdict.promoted is Promoted.CHALLENGER
        assert judgement.verdict.becomes_anchor is is_promoted
    elif FORWARD in changes:  # What it made means something else to today's code.
        assert judgement.anchor is None and "golden rows differ" in judgement.problem
        assert judgement.verdict.promoted is Promoted.NONE
    else:
        assert "so the change of code is judged alone" in judgement.anchor_note
        assert judgement.anchor is not None
        delta = judgement.anchor.recipe.find_pooled(judgement.anchor.recipe.target_metric)
        assert delta.value != 0


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[ResolvedRun, Snapshot]:
    from pipelines.snapshot.build import write_snapshot

    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_log(folder / "event_log")
    run = make_run(folder, tiny_config(num_shards=1), TINY_AS_OF, champion=CHAMPION)
    return run, write_snapshot(run)


def fresh_anchor(tiny: tuple[ResolvedRun, Snapshot], **fields: Any) -> FreshAnchor:
    """Run the stage, with such a standing; other fields are the run's."""
    run, snapshot = tiny
    standing = {name: fields.pop(name) for name in tuple(fields) if name in Standing.model_fields}
    place = accepted_code.place_of(run.workspace_uri, standing.get("anchor_code_digest", ""))
    known = Standing(anchor_code_uri=place, **standing)
    run = run.model_copy(update={"standing": known, **fields})
    docs = {"docs_uri": "file:///nowhere/index.html", "reference_digest": None}
    report = DataReport(snapshot_digest=snapshot.digest, outcomes=(), **docs)
    return train.train_anchor(run, snapshot, report, "file:///nowhere/output")


CONFIG = tiny_config(num_shards=1)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "No recipe is accepted yet."),
        ({"anchor": CONFIG}, "so the challenger is the fresh anchor"),
        ({"anchor": CONFIG, "anchor_code_digest": code_digest()}, "the challenger is the fresh"),
        ({"anchor": roomy(), "champion": None}, "No model serves"),
    ],
)
def test_it_publishes_also_that_there_was_nothing_to_do(
    tiny: tuple[ResolvedRun, Snapshot], fields: dict[str, Any], said: str
) -> None:
    found = fresh_anchor(tiny, **fields)
    assert (found.trained, found.problem) == (None, "")
    assert re.search(said, found.reason)
    assert fresh_anchor(tiny, problem="It is not known.").problem == "It is not known."


@pytest.mark.parametrize("recipe", [CONFIG, roomy()])
@pytest.mark.parametrize(
    ("is_kept", "said"),
    [(False, r"ConfigurationError: .*/e{64} holds no wheel"), (True, "schema_version is 2")],
)
def test_accepted_code_that_cannot_be_run_stops_promotions_and_not_the_cycle(
    tiny: tuple[ResolvedRun, Snapshot], tmp_path: Path, recipe: RunConfig, is_kept: bool, said: str
) -> None:
    accepted = "e" * 64
    if is_kept:
        accepted = keep_older_code(tiny[0].workspace_uri, tmp_path, EQUAL, SCHEMA)
    found = fresh_anchor(tiny, anchor=recipe, anchor_code_digest=accepted)
    assert (found.why, found.trained) == (AnchorWhy.CODE_NOT_RUN, None)
    assert re.search(said, found.problem)
    assert f"`homefeed anchor set --recipe {recipe.reference} --reason ...`" in found.problem


def test_a_wheel_of_other_code_than_the_accepted_is_not_run(
    tiny: tuple[ResolvedRun, Snapshot], tmp_path: Path
) -> None:
    workspace_uri = tiny[0].workspace_uri
    keep_older_code(workspace_uri, tmp_path, OTHER)
    folder, ours = (storage.local_path(accepted_code.place_of(workspace_uri, digest))
                    for digest in ("f" * 64, code_digest()))  # fmt: skip
    shutil.copytree(ours, folder)
    found = fresh_anchor(tiny, anchor=CONFIG, anchor_code_digest="f" * 64)
    said = f"its wheel holds code {code_digest()[:12]}, expected ffffffffffff"
    assert found.trained is None and said in found.problem


GONE = CONFIG.snapshot.model_copy(update={"embedding_version": "retired-7"})
OWN = CONFIG.features.model_copy(
    update={"numeric": (NumericFeature(name="retired_features:season"),)}
)


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"snapshot": GONE}, "retired-7"), ({"features": OWN}, "retired_features")],
)
def test_a_recipe_that_cannot_be_made_any_more_stops_promotions_and_not_the_cycle(
    tiny: tuple[ResolvedRun, Snapshot],
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    said: str,
) -> None:
    monkeypatch.setattr(train, "train_side", lambda *_: 1 / 0)
    found = fresh_anchor(tiny, anchor=CONFIG.model_copy(update=changes))
    assert found.trained is None
    assert "cannot be made any more" in found.problem and said in found.problem
    assert "`homefeed anchor set --recipe NAME --reason ...`" in found.problem


@pytest.mark.parametrize("error", [TransientStorageError, SnapshotDamagedError, HomefeedError])
def test_a_failure_that_is_not_the_recipe_s_is_one_of_the_stage(
    tiny: tuple[ResolvedRun, Snapshot], monkeypatch: pytest.MonkeyPatch, error: type[HomefeedError]
) -> None:
    """Such as a full disk, a damaged file, or a trainer that was killed: Airflow tries again."""

    def fail(*_: object) -> None:
        raise error("the trainer was killed")

    monkeypatch.setattr(train, "train_side", fail)
    longer = CONFIG.training.model_copy(update={"num_epochs": 9})
    with pytest.raises(error, match="the trainer was killed"):
        fresh_anchor(tiny, anchor=CONFIG.model_copy(update={"training": longer}))
