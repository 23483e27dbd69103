"""A model of another recipe gets a snapshot of the same requests, computed as its recipe says."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipelines import storage
from pipelines.contracts.artifacts import ResolvedRun, Snapshot
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.features.categorical import CategoricalFeature
from pipelines.contracts.features.numeric import NumericFeature
from pipelines.contracts.schemas import SPLIT_HOLDOUT, SPLIT_TRAINING
from pipelines.snapshot.build import write_snapshot
from pipelines.snapshot.counterpart import counterpart
from support.runs import make_run
from support.worlds import write_planted_world
from training.bundle.score_split import digest_rows
from training.data.reader import SnapshotReader


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[ResolvedRun, Snapshot]:
    """A planted log whose pins have a second embedding version, and a snapshot of the first."""
    folder = tmp_path_factory.mktemp("counterpart")
    write_planted_world(folder / "event_log")
    [path] = (folder / "event_log" / "pins").glob("*.parquet")
    pins = pq.read_table(path)
    version = pins.schema.get_field_index("embedding_version")
    turned = pc.list_flatten(pins["embedding"]).to_numpy()[::-1].copy()
    other = pins.set_column(
        version, pins.schema.field(version), pa.array(["planted-2"] * len(pins))
    ).set_column(
        pins.schema.get_field_index("embedding"),
        pins.schema.field("embedding"),
        pa.FixedSizeListArray.from_arrays(pa.array(turned, pa.float32()), 32),
    )
    pq.write_table(other, path.with_name("part-2.parquet"))
    run = make_run(folder)
    return run, write_snapshot(run, num_workers=1)


def digests(snapshot: Snapshot, heads: tuple[str, ...]) -> list[str]:
    reader = SnapshotReader(snapshot, storage.local_path(snapshot.uri), snapshot.features, 1)
    return [digest_rows(reader, reader.index(s), heads) for s in (SPLIT_TRAINING, SPLIT_HOLDOUT)]


def test_the_same_recipe_has_the_same_snapshot(built: tuple[ResolvedRun, Snapshot]) -> None:
    run, snapshot = built
    options = run.config.snapshot.model_copy(update={"training_days": 3, "num_shards": 5})
    assert counterpart(run, snapshot, run.config.features, options) is snapshot


def test_another_recipe_has_other_inputs_for_the_same_rows(
    built: tuple[ResolvedRun, Snapshot],
) -> None:
    run, snapshot = built
    repin, long_click, _ = run.config.features.heads
    state = CategoricalFeature(name="state", table="users", values=("core", "new"))
    features = run.config.features.model_copy(
        update={"heads": (repin, long_click), "categorical": (state,)}
    )
    options = run.config.snapshot.model_copy(
        update={"embedding_version": "planted-2", "popularity_days": 7, "holdout_days": 3}
    )
    other = counterpart(run, snapshot, features, options)
    assert other.digest != snapshot.digest
    assert (other.training, other.holdout) == (snapshot.training, snapshot.holdout)
    assert other.embedding_version == "planted-2"
    shared = ("repin", "long_click")
    assert digests(other, shared) == digests(snapshot, shared)

    ours, theirs = (
        SnapshotReader(s, storage.local_path(s.uri), s.features, 1).pins["embedding"]
        for s in (snapshot, other)
    )
    assert not np.array_equal(ours, theirs)


def test_numbers_that_the_snapshot_lacks_are_computed_in_another(
    built: tuple[ResolvedRun, Snapshot],
) -> None:
    run, snapshot = built
    features = run.config.features
    wanted = (NumericFeature(name="weekday"), NumericFeature(name="pin_popularity"))
    other = counterpart(
        run,
        snapshot,
        features.model_copy(update={"numeric": wanted}),
        run.config.snapshot,
    )
    assert other.digest != snapshot.digest
    assert digests(other, ("repin",)) == digests(snapshot, ("repin",))
    names = SnapshotReader(other, storage.local_path(other.uri), other.features, 1).examples[0]
    assert set(names["num_weekday"]) <= set(range(7))


@pytest.mark.parametrize("names", [(), ("pin_popularity",), ("pin_age", "pin_popularity_7d")])
def test_numbers_that_every_snapshot_holds_need_no_other(
    built: tuple[ResolvedRun, Snapshot], names: tuple[str, ...]
) -> None:
    run, snapshot = built
    numeric = tuple(NumericFeature(name=name) for name in names)
    features = run.config.features.model_copy(update={"numeric": numeric})
    assert counterpart(run, snapshot, features, run.config.snapshot) is snapshot


def test_another_option_of_a_number_is_another_number(
    built: tuple[ResolvedRun, Snapshot],
) -> None:
    """The pins of this log have no such column, which shows that it was looked for."""
    run, snapshot = built
    numeric = (NumericFeature(name="pin_age", column="created_at"),)
    features = run.config.features.model_copy(update={"numeric": numeric})
    with pytest.raises(DataContractError, match="missing column 'created_at'"):
        counterpart(run, snapshot, features, run.config.snapshot)


def test_what_the_event_log_lacks_is_named(built: tuple[ResolvedRun, Snapshot]) -> None:
    run, snapshot = built
    options = run.config.snapshot.model_copy(update={"embedding_version": "planted-9"})
    with pytest.raises(DataContractError, match="planted-9"):
        counterpart(run, snapshot, run.config.features, options)
