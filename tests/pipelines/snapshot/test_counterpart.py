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
from pipelines.contracts.judgement import Comparison
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


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[ResolvedRun, Snapshot]:
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
    return run, write_snapshot(run, num_workers=1)


def reader(snapshot: Snapshot) -> SnapshotReader:
    return SnapshotReader(snapshot, storage.local_path(snapshot.uri), snapshot.features, 1)


def digests(snapshot: Snapshot, *heads: str) -> list[str]:
    read = reader(snapshot)
    return [digest_rows(read, read.index(s), heads) for s in (SPLIT_TRAINING, SPLIT_HOLDOUT)]


STATE = CategoricalFeature(name="state", table="users", values=("core", "new"))
WEEKDAY = (NumericFeature(name="weekday"), NumericFeature(name="pin_popularity"))
HELD = ((), ("pin_popularity",), ("pin_age", "pin_popularity_7d"))
OTHER_INPUTS = {"embedding_version": "planted-2", "popularity_days": 7, "holdout_days": 3}


@pytest.mark.parametrize(
    ("features", "options", "is_same"),
    [
        ({}, {"training_days": 3, "num_shards": 5}, True),
        *(
            ({"numeric": tuple(NumericFeature(name=name) for name in names)}, {}, True)
            for names in HELD
        ),
        ({"numeric": WEEKDAY}, {}, False),
        ({"categorical": (STATE,)}, {}, False),
        ({"categorical": (STATE,), "heads": smoke().features.heads[:2]}, OTHER_INPUTS, False),
    ],
)
def test_another_recipe_has_other_inputs_for_the_same_rows(
    built: tuple[ResolvedRun, Snapshot], features: dict, options: dict, is_same: bool
) -> None:
    """None is built where the run's own snapshot holds the same numbers."""
    run, snapshot = built
    config = run.config
    told = config.features.model_copy(update=features)
    other = counterpart(run, snapshot, told, config.snapshot.model_copy(update=options))
    assert (other is snapshot) == is_same == (other.digest == snapshot.digest)
    assert (other.training, other.holdout) == (snapshot.training, snapshot.holdout)
    assert digests(other, "repin", "long_click") == digests(snapshot, "repin", "long_click")
    version = options.get("embedding_version", "planted-1")
    assert other.embedding_version == version
    ours, theirs = (reader(each).pins["embedding"] for each in (snapshot, other))
    assert np.array_equal(ours, theirs) == (version == "planted-1")
    if "numeric" in features and not is_same:
        assert set(reader(other).examples[0]["num_weekday"]) <= set(range(7))


@pytest.mark.parametrize(
    ("features", "options", "says"),
    [
        (
            {"numeric": (NumericFeature(name="pin_age", column="created_at"),)},
            {},
            "missing column 'created_at'",
        ),
        ({}, {"embedding_version": "planted-9"}, "planted-9"),
    ],
)
def test_what_the_event_log_lacks_is_named(
    built: tuple[ResolvedRun, Snapshot], features: dict, options: dict, says: str
) -> None:
    """Another option of a number is another number."""
    run, snapshot = built
    told = run.config.features.model_copy(update=features)
    with pytest.raises(DataContractError, match=says):
        counterpart(run, snapshot, told, run.config.snapshot.model_copy(update=options))


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


def compare(run: ResolvedRun, folder: Path, before: RunConfig, after: RunConfig) -> Comparison:
    """Return what the gate finds of a challenger after a change against a champion before it."""
    run = run.model_copy(update={"config": after})
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
def test_after_a_change_in_mid_life_both_sides_are_compared_on_the_same_requests(
    built: tuple[ResolvedRun, Snapshot], tmp_path: Path, name: str
) -> None:
    """The champion was trained before it; both are scored each as its own recipe says."""
    before, after, said = CHANGES[name]
    found = compare(built[0], tmp_path, before, after)
    assert found.baseline_kind is BaselineKind.CHAMPION
    assert found.holdout_digest == found.baseline_holdout_digest
    assert found.target is not None and found.target.relative_change is not None
    assert any(said in each.sentence for each in found.differences), found.differences
    assert found.seen == ()
    seen = look_at(built[0].event_log_uri, PLANTED_AS_OF)
    assert champion_problems(before, after, seen, PLANTED_AS_OF) == [], "refused beforehand"
