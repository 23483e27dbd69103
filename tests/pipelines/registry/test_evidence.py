"""Evidence of judged cycles: what is pinned, what may be pooled, and what is refused."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines import storage
from pipelines.contracts.artifacts import PinnedFile, ResolvedRun, Standing
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.judgement import SelfTest
from pipelines.contracts.reasons import LinePoint, Spent
from pipelines.contracts.time import Window
from pipelines.recipes import smoke
from pipelines.registry import evidence
from pipelines.registry.evidence import count_tries, earlier_changes, line_before, pool_facts
from support.comparisons import CONFIG, change, comparison, pooled
from support.desk import variant
from support.evidence import JUDGED_AT, PAIRS, TARGET, publish_evidence
from support.judgements import CHAMPION
from support.runs import make_run
from validation.model_gate.comparison import Found
from validation.model_gate.facts import Facts
from validation.model_gate.intervals import NOTHING
from validation.model_gate.pooling import Influences

OURS, ACCEPTED = smoke().recipe_digest, variant(9)
OF_THE_PAIR = {"anchor_recipe": ACCEPTED.recipe_digest, "champion_bundle": CHAMPION.bundle_digest}


def publish(run: ResolvedRun, **fields: Any) -> str:
    """Publish what an earlier cycle of the same pair found, but for what is given."""
    return publish_evidence(run, **(OF_THE_PAIR | fields))


def make_pooling_run(tmp_path: Path, **standing: Any) -> ResolvedRun:
    found = Standing(**({"anchor": ACCEPTED} | standing))
    return make_run(tmp_path, champion=CHAMPION, standing=found, code_digest="a" * 64)


def pinned(run: ResolvedRun) -> tuple[PinnedFile, ...]:
    return evidence.pin(run.workspace_uri, run.registered_model, run.run_id)


def pooled_pairs(run: ResolvedRun) -> list[str]:
    """Return the pairs of which an earlier cycle is pooled with this run."""
    cycles = evidence.read(pinned(run))
    return [pair for pair in PAIRS if earlier_changes(run, cycles, pair)]


def test_what_is_left_comes_back_as_it_was(tmp_path: Path) -> None:
    run = make_pooling_run(tmp_path)
    publish(run)
    [cycle] = evidence.read(pinned(run))
    groups, columns = evidence.read_influences(run, cycle)
    assert groups.tolist() == [4, 77]
    assert columns[f"phi|{TARGET}|all"].tolist() == [0.001, -0.002]
    [found] = earlier_changes(run, [cycle], "delta")[(TARGET, "all")]
    assert (found.value, found.holdout) == (0.01, cycle.holdout)


LATER = JUDGED_AT + timedelta(days=1)
ALL = list(PAIRS)
OTHER = "f" * 64
ONE_RECIPE = {"anchor": smoke(), "anchor_code_digest": "b" * 64}


@pytest.mark.parametrize(
    ("standing", "fields", "expected"),
    [
        ({}, {}, ALL),
        ({"champion_since": LATER}, {}, ["delta"]),  # another champion came, the recipes stay
        ({"champion_since": LATER, "rolled_back_at": LATER}, {}, []),  # a rollback empties all
        ({}, {"champion_bundle": "e" * 64}, ["delta"]),
        ({}, {"challenger_recipe": OTHER}, ["phi"]),
        ({}, {"anchor_recipe": OTHER}, ["theta"]),
        ({}, {"as_of": datetime(2018, 1, 1, tzinfo=UTC)}, []),  # newer than the run
        ({}, {"changes": ()}, []),  # its comparisons were void
        # Only the same two codes are pooled, of one recipe or two.
        ({"anchor_code_digest": "b" * 64}, {"codes": ("a" * 64, "c" * 64)}, ["theta", "phi"]),
        (ONE_RECIPE, {"anchor_recipe": OURS, "codes": ("a" * 64, "b" * 64)}, ALL),
        (ONE_RECIPE, {"anchor_recipe": OURS, "codes": ("b" * 64, "a" * 64)}, ["theta", "phi"]),
        (ONE_RECIPE, {"anchor_recipe": OURS, "codes": ("", "")}, ["theta", "phi"]),
    ],
)
def test_only_the_same_pair_is_pooled(
    tmp_path: Path, standing: dict[str, Any], fields: dict[str, Any], expected: list[str]
) -> None:
    run = make_pooling_run(tmp_path, **standing)
    publish(run, **fields)
    assert pooled_pairs(run) == expected
    # Evidence is found where the workspace is now.
    (tmp_path / "workspace").rename(tmp_path / "moved")
    moved = run.model_copy(update={"workspace_uri": storage.to_uri(tmp_path / "moved")})
    assert pooled_pairs(moved) == expected


def test_of_a_line_each_change_of_recipe_counts_as_a_step(tmp_path: Path) -> None:
    run = make_pooling_run(tmp_path)
    named = {"challenger_name": run.config.recipe}
    of_old = {OURS: 8, OTHER: 6, "e" * 64: 4}
    for recipe, weeks in of_old.items():
        publish(run, as_of=run.as_of - timedelta(weeks=weeks), challenger_recipe=recipe, **named)
    publish(run, as_of=run.as_of - timedelta(weeks=3), challenger_recipe="e" * 64, **named)
    stranger = {"challenger_recipe": "d" * 64, "challenger_name": "stranger"}
    publish(run, as_of=run.as_of - timedelta(weeks=2), **stranger)
    cycles = evidence.read(pinned(run))
    for pair in ("theta", "delta"):
        found = earlier_changes(run, cycles, pair)[(TARGET, "all")]
        assert [each.steps for each in found] == [1, 1, 2, 0]  # the newest first
    assert {each.steps for each in earlier_changes(run, cycles, "phi")[(TARGET, "all")]} == {0}


def test_what_accepted_recipes_spend_of_a_guardrail_adds_up_until_a_person_looks(
    tmp_path: Path,
) -> None:
    rail = CONFIG.guardrails[0].metric
    run = make_pooling_run(tmp_path, anchor_code_digest="b" * 64)
    config = run.config.model_copy(update={"model_gate": CONFIG})
    run = run.model_copy(update={"config": config})
    mine = Spent(metric=rail, value=0.01, error=0.03)
    row = pooled(0.01, 1, 0.05, rail).model_copy(update={"since_accepted": mine})
    now = comparison(change(0.01), pooled=(row,))
    assert evidence._with_spent(run, [], now).spent == (mine,)
    before = Spent(metric=rail, value=0.02, error=0.04)
    accepted = {"challenger_recipe": ACCEPTED.recipe_digest, "codes": ("b" * 64, "")}
    publish(run, as_of=run.as_of - timedelta(weeks=6), spent=(before,), **accepted)
    publish(run, as_of=run.as_of - timedelta(weeks=2))  # Another recipe, which was not accepted.
    cycles = evidence.read(pinned(run))
    [total] = evidence._with_spent(run, cycles, now).spent
    assert (total.value, total.error) == (pytest.approx(0.03), pytest.approx(0.05))
    # In a cycle that cannot tell, what was spent is not forgotten.
    assert evidence._with_spent(run, cycles, comparison(change(0.01))).spent == (before,)
    looked = run.standing.model_copy(update={"looked_at": JUDGED_AT + timedelta(days=900)})
    run = run.model_copy(update={"standing": looked})
    assert evidence._with_spent(run, cycles, now).spent == (mine,)


def test_models_that_were_tried_on_one_holdout_are_counted(tmp_path: Path) -> None:
    run = make_pooling_run(tmp_path)
    holdout = Window(start=run.as_of - timedelta(days=7), end=run.as_of)
    now = comparison(change(0.01), holdout=holdout)
    recipes = {"same-again": OURS, "other-recipe": OTHER, "its-third": "e" * 64}
    for run_id, recipe in recipes.items():
        publish(run, as_of=run.as_of, run_id=run_id, challenger_recipe=recipe)
    publish(run, as_of=run.as_of, run_id="void", challenger_recipe="d" * 64, changes=())
    publish(run, as_of=run.as_of, run_id=run.run_id)  # A run is not its own past.
    publish(run)  # On an earlier holdout.
    cycles = evidence.read(pinned(run))
    assert count_tries(run, cycles, now) == 3
    assert count_tries(run, cycles, comparison(change(0.02), holdout=holdout)) == 4
    moved = run.standing.model_copy(update={"champion_since": LATER})
    assert count_tries(run.model_copy(update={"standing": moved}), cycles, now) == 1
    before = run.as_of - timedelta(days=14)
    assert evidence.unpromoted_days(cycles, 0, None) == (before, run.as_of)
    assert evidence.unpromoted_days(cycles, 0, LATER) == ()


def test_the_long_term_line_has_the_champions_since_a_person_looked(tmp_path: Path) -> None:
    run = make_pooling_run(tmp_path)
    expected = []
    for number, weeks in enumerate((8, 6, 4, 2, 0)):
        as_of = run.as_of - timedelta(weeks=weeks)
        point = LinePoint(reference="one", as_of=as_of, value=0.1 * number, error=0.01)
        judged_at, may_promote = JUDGED_AT + timedelta(days=number), number != 2
        fields = {"judged_at": judged_at, "may_promote": may_promote}
        publish(run, as_of=as_of, line=(point,), **fields)
        expected.append(point)
    last = {"run_id": "again", "judged_at": JUDGED_AT + timedelta(days=9)}
    publish(run, as_of=run.as_of - timedelta(weeks=2), **last)
    cycles = evidence.read(pinned(run))
    # A cycle that could not promote, or promoted nothing, made no champion; today's is not one yet.
    assert line_before(run, cycles) == (expected[0], expected[1], expected[3])
    looked = run.standing.model_copy(update={"looked_at": JUDGED_AT + timedelta(days=1)})
    assert line_before(run.model_copy(update={"standing": looked}), cycles) == (expected[3],)


@pytest.mark.parametrize(
    ("num", "fields", "usual"),
    [
        (4, {}, 0.01),
        (3, {}, 0.1),  # too few to say what is usual
        (4, {"judged_at": LATER}, 0.1),  # since the champion came: a leak may have stayed
        (4, {"champion_bundle": ""}, 0.1),  # against a simple ranking
        (4, {"may_promote": False}, 0.1),
    ],
)
def test_what_challengers_gained_up_to_the_champions_promotion_is_plausible(
    tmp_path: Path, num: int, fields: dict[str, Any], usual: float
) -> None:
    run, key = make_pooling_run(tmp_path, champion_since=JUDGED_AT), (TARGET, "all")
    for fortnights in range(1, num + 1):
        publish(run, as_of=run.as_of - timedelta(weeks=2 * fortnights), **fields)
    groups = np.array([4, 77])
    influences = Influences(groups, {key: np.array([0.01, -0.02])}, {key: NOTHING})
    theta = Found(comparison(change(0.01)), influences)
    found = pool_facts(run, evidence.read(pinned(run)), Facts(theta, SelfTest())).theta.comparison
    pooled = found.find_pooled(TARGET)
    assert pooled is not None and found.plausible_lift is not None
    spread = np.hypot(pooled.error, np.sqrt(2) * run.seed_noise)
    assert found.plausible_lift == pytest.approx(usual + 3 * spread)
    assert found.past_lifts == ((0.01,) * num if usual == 0.01 else ())


@pytest.mark.parametrize("what", ["record", "influences", "altered"])
def test_evidence_that_is_gone_or_altered_when_it_is_needed_is_named(
    tmp_path: Path, what: str
) -> None:
    run = make_pooling_run(tmp_path)
    record = storage.local_path(publish(run))
    pins = pinned(run)
    cycles = evidence.read(pins)
    path = next(record.parent.glob("*.parquet")) if what == "influences" else record
    text = path.read_text().replace("0.01", "0.09") if what == "altered" else ""
    path.unlink()
    if text:
        path.write_text(text)
    message = "holds other bytes" if text else rf"{path.name}, is gone.*start a new"
    with pytest.raises(DataContractError, match=message):
        earlier_changes(run, cycles, "theta") if what == "influences" else evidence.read(pins)


def test_new_runs_go_on_without_evidence_that_was_deleted_or_altered(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = make_pooling_run(tmp_path)
    altered = storage.local_path(publish(run, as_of=run.as_of - timedelta(days=42)))
    altered.write_text(altered.read_text().replace("0.01", "0.51"))
    uri = publish(run)
    publish(run, as_of=run.as_of - timedelta(days=28), changes=())
    next(storage.local_path(uri).parent.glob("*.parquet")).unlink()
    (storage.local_path(uri).parent / "2017-01-01--x.json").write_text('{"of": "another version"}')
    assert len(pinned(run)) == 1
    assert "its evidence is not pooled" in caplog.text


def test_a_cycle_that_is_judged_again_rewrites_nothing_and_keeps_its_time(tmp_path: Path) -> None:
    run = make_pooling_run(tmp_path)
    first = publish(run)
    pins = pinned(run)
    assert publish(run, judged_at=LATER) == first
    assert publish(run, judged_at=LATER, changes=()) != first
    assert [len(cycle.changes) for cycle in evidence.read(pins)] == [3]
    [cycle] = evidence.read(pinned(run))
    assert (cycle.changes, cycle.judged_at) == ((), JUDGED_AT)
