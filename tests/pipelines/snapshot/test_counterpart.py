"""A model of another recipe gets a snapshot of the same requests, computed as its recipe says."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipelines import storage
from pipelines.contracts.artifacts import ResolvedRun, Snapshot
from pipelines.contracts.config import CategoricalFeature, Head, NumericFeature, RunConfig
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.reasons import BaselineKind
from pipelines.contracts.schemas import SPLIT_HOLDOUT, SPLIT_TRAINING
from pipelines.preconditions.cycle import champion_problems, look_at
from pipelines.recipes import smoke
from pipelines.snapshot.build import write_snapshot
from pipelines.snapshot.counterpart import counterpart
from support.bundles import chance_bundle
from support.holdouts import NEW_CHALLENGER
from support.judgements import CHAMPION
from support.runs import PLANTED_AS_OF, make_run
from support.worlds import write_planted_world
from training.bundle.score_split import digest_rows
from training.data.reader import SnapshotReader
from validation.model_gate.facts import Side, gather_facts

Built = tuple[ResolvedRun, Snapshot]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A planted log whose pins have a second embedding version, and a snapshot of the first."""
    folder = tmp_path_factory.mktemp("counterpart")
    write_planted_world(folder / "event_log")
    [path] = (folder / "event_log" / "pins").glob("*.parquet")
    pins = pq.read_table(path)
    turned = pc.list_flatten(pins["embedding"]).to_numpy()[::-1].copy()
    columns = {name: pins[name] for name in pins.schema.names}
    columns["embedding_version"] = pa.array(["planted-2"] * len(pins))
    columns["embedding"] = pa.FixedSizeListArray.from_arrays(pa.array(turned, pa.float32()), 32)
    pq.write_table(pa.table(columns, schema=pins.schema), path.with_name("part-2.parquet"))
    run = make_run(folder)
    return run, write_snapshot(run)


BEFORE = smoke()
TYPES, HEADS = BEFORE.features.action_types, BEFORE.features.heads


def changed(snapshot: dict | None = None, **features: object) -> RunConfig:
    """Return the recipe after a change."""
    update = {
        "features": BEFORE.features.model_copy(update=features),
        "snapshot": BEFORE.snapshot.model_copy(update=snapshot or {}),
    }
    return BEFORE.model_copy(update=update)


def numeric(*names: str) -> tuple[NumericFeature, ...]:
    return tuple(NumericFeature(name=name) for name in names)


def reader(snapshot: Snapshot) -> SnapshotReader:
    return SnapshotReader(snapshot.shards, storage.local_path(snapshot.uri), snapshot.features, 1)


def digests(snapshot: Snapshot) -> list[str]:
    read, heads = reader(snapshot), ("repin", "long_click")
    return [digest_rows(read, read.index(s), heads) for s in (SPLIT_TRAINING, SPLIT_HOLDOUT)]


STATE = CategoricalFeature(name="state", table="users", values=("core", "new"))
OTHER_INPUTS = {"embedding_version": "planted-2", "popularity_days": 7, "holdout_days": 3}


@pytest.mark.parametrize(
    ("recipe", "is_same"),
    [
        (changed({"training_days": 3, "num_shards": 5}), True),
        (changed(numeric=()), True),
        (changed(numeric=numeric("pin_age", "pin_popularity_7d")), True),
        (changed(numeric=numeric("weekday", "pin_popularity")), False),
        (changed(categorical=(STATE,)), False),
        (changed(OTHER_INPUTS, categorical=(STATE,), heads=HEADS[:2]), False),
    ],
)
def test_another_recipe_has_other_inputs_for_the_same_rows(
    built: Built, recipe: RunConfig, is_same: bool
) -> None:
    """None is built where the run's own snapshot holds the same numbers."""
    run, snapshot = built
    other = counterpart(run, snapshot, recipe.features, recipe.snapshot)
    assert (other is snapshot) == is_same == (other.digest == snapshot.digest)
    assert (other.training, other.holdout) == (snapshot.training, snapshot.holdout)
    assert digests(other) == digests(snapshot)
    assert other.embedding_version == recipe.snapshot.embedding_version
    ours, theirs = (reader(each).pins["embedding"] for each in (snapshot, other))
    assert np.array_equal(ours, theirs) == (other.embedding_version == "planted-1")
    if recipe.features.numeric == numeric("weekday", "pin_popularity"):
        assert set(reader(other).examples[0]["num_weekday"]) <= set(range(7))


@pytest.mark.parametrize(
    ("recipe", "says"),
    [
        (
            changed(numeric=(NumericFeature(name="pin_age", column="created_at"),)),
            "missing column 'created_at'",  # another option of a number is another number
        ),
        (changed({"embedding_version": "planted-9"}), "planted-9"),
    ],
)
def test_what_the_event_log_lacks_is_named(built: Built, recipe: RunConfig, says: str) -> None:
    with pytest.raises(DataContractError, match=says):
        counterpart(*built, recipe.features, recipe.snapshot)


CLICK = Head(name="click", action_type="click", utility_weight=0.1)
MORE = (*BEFORE.features.numeric, *numeric("pin_age", "weekday"))
WITHOUT_CLICKS = changed(action_types=tuple(name for name in TYPES if name != "click"))


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (BEFORE, changed(numeric=MORE), "The challenger's numeric features: pin_"),
        (BEFORE, changed(heads=(*HEADS, CLICK)), "The challenger's heads: click (wanted click"),
        (WITHOUT_CLICKS, BEFORE, "The challenger's action types: repin, click"),
        (BEFORE, changed({"embedding_version": "planted-2"}), "embedding version: planted-2"),
    ],
)
def test_after_a_change_in_mid_life_both_sides_are_compared_on_the_same_requests(
    built: Built, tmp_path: Path, before: RunConfig, after: RunConfig, said: str
) -> None:
    """The champion was trained before it; both are scored each as its own recipe says."""
    run = built[0].model_copy(update={"config": after})
    snapshot = write_snapshot(run)
    own = counterpart(run, snapshot, before.features, before.snapshot)
    sides = (
        Side(ref, chance_bundle(tmp_path / name, of, recipe, 1), of, storage.local_path(of.uri))
        for ref, name, of, recipe in (
            (NEW_CHALLENGER, "new", snapshot, after),
            (CHAMPION, "old", own, before),
        )
    )
    found = gather_facts(*sides, after).theta.comparison
    assert found.baseline_kind is BaselineKind.CHAMPION
    assert found.holdout_digest == found.baseline_holdout_digest
    assert found.target is not None and found.target.relative_change is not None
    assert any(said in each.sentence for each in found.differences), found.differences
    assert found.seen == ()
    seen = look_at(run.event_log_uri)
    assert champion_problems(before, after, seen, PLANTED_AS_OF) == [], "refused beforehand"
