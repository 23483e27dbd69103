"""A feature, head, action type or embedding version that is new: both sides on their own features.

The champion was trained before the change, and the challenger after it. Both are scored on the same
requests, each as its own recipe says, by the gate itself; the models are untrained.
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipelines import storage
from pipelines.contracts.config import Head, RunConfig
from pipelines.contracts.features.numeric import NumericFeature
from pipelines.contracts.judgement import BaselineKind, Comparison
from pipelines.preconditions.champion import champion_problems
from pipelines.preconditions.event_log import look_at
from pipelines.recipes import smoke
from pipelines.snapshot.build import write_snapshot
from pipelines.snapshot.counterpart import counterpart
from support.bundles import chance_bundle
from support.holdouts import NEW_CHALLENGER
from support.judgements import CHAMPION
from support.runs import PLANTED_AS_OF, make_run
from support.worlds import write_planted_world
from validation.model_gate.facts import Side, gather_facts

BEFORE = smoke()
TYPES, (REPIN, LONG_CLICK, SAVE) = BEFORE.features.action_types, BEFORE.features.heads
CLICK = Head(name="click", action_type="click", utility_weight=0.1)


def changed(version: str = "planted-1", **features: object) -> RunConfig:
    """Return the recipe after a change; before it, the recipe knows no click but for this."""
    snapshot = BEFORE.snapshot.model_copy(update={"embedding_version": version})
    update = {"features": BEFORE.features.model_copy(update=features), "snapshot": snapshot}
    return BEFORE.model_copy(update=update)


def without_clicks() -> RunConfig:
    return changed(action_types=tuple(name for name in TYPES if name != "click"))


AGE = (*BEFORE.features.numeric, NumericFeature(name="pin_age"), NumericFeature(name="weekday"))
CHANGES = {
    "a feature": (BEFORE, changed(numeric=AGE), "The challenger's numeric features: pin_"),
    "a head": (BEFORE, changed(heads=(REPIN, LONG_CLICK, SAVE, CLICK)), "Head 'click' is wanted"),
    "an action type": (without_clicks(), BEFORE, "The challenger's action types: repin, click"),
    "an embedding version": (BEFORE, changed("planted-2"), "embedding version: planted-2"),
}


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A planted log whose pins have two embedding versions."""
    folder = tmp_path_factory.mktemp("mid_life")
    write_planted_world(folder / "event_log")
    [path] = (folder / "event_log" / "pins").glob("*.parquet")
    pins = pq.read_table(path)
    turned = pc.list_flatten(pins["embedding"]).to_numpy()[::-1].copy()
    columns = {name: pins[name] for name in pins.schema.names}
    columns["embedding_version"] = pa.array(["planted-2"] * len(pins))
    columns["embedding"] = pa.FixedSizeListArray.from_arrays(pa.array(turned, pa.float32()), 32)
    pq.write_table(pa.table(columns, schema=pins.schema), path.with_name("part-2.parquet"))
    return folder


def compare(log: Path, folder: Path, before: RunConfig, after: RunConfig) -> Comparison:
    """Return what the gate finds of a challenger after a change against a champion before it."""
    run = make_run(log, after)
    snapshot = write_snapshot(run, num_workers=1)
    own = counterpart(run, snapshot, before.features, before.snapshot)
    challenger, champion = (
        chance_bundle(folder / name, made, recipe, seed)
        for name, made, recipe, seed in (("new", snapshot, after, 1), ("old", own, before, 2))
    )
    sides = (
        Side(NEW_CHALLENGER, challenger, snapshot, storage.local_path(snapshot.uri)),
        Side(CHAMPION, champion, own, storage.local_path(own.uri)),
    )
    return gather_facts(*sides, after).theta.comparison


@pytest.mark.parametrize("name", CHANGES)
def test_both_sides_are_compared_on_the_same_requests(log: Path, tmp_path: Path, name: str) -> None:
    before, after, said = CHANGES[name]
    found = compare(log, tmp_path, before, after)
    assert found.baseline_kind is BaselineKind.CHAMPION
    assert found.holdout_digest == found.baseline_holdout_digest
    assert found.target is not None and found.target.relative_change is not None
    assert any(said in each.sentence for each in found.differences), found.differences
    assert found.seen == ()


@pytest.mark.parametrize("name", CHANGES)
def test_none_of_these_changes_is_refused_beforehand(log: Path, name: str) -> None:
    before, after, _ = CHANGES[name]
    seen = look_at(storage.to_uri(log / "event_log"), PLANTED_AS_OF)
    assert champion_problems(before, after, seen, PLANTED_AS_OF) == []
