"""Every feature of the catalogue equals its slow reference, and knows nothing of later rows."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from pipelines.contracts.config import NumericFeature
from pipelines.contracts.features import CATALOGUE
from pipelines.contracts.schemas import numeric_column
from pipelines.contracts.snapshot_files import open_table
from pipelines.contracts.time import DAY_MS, HOUR_MS, to_ms
from pipelines.storage import local_path
from support import slow_features
from support.random_log import AS_OF, START_MS, Row, build, config_of, write_random_log
from support.slow_features import SLOW, Asked, AskedRequest, Slow

OPTIONS = {"session_position": {"gap_minutes": 600}, "since_last_touch_of_category": {}}
OPTIONS["since_last_touch_of_category"] = {"category": "brand"}
FEATURES = tuple(NumericFeature(name=name, **OPTIONS.get(name, {})) for name in SLOW)


class Built(NamedTuple):
    asked: list[Asked]
    columns: dict[str, np.ndarray]  # of the examples; and "asked_at"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build_with(tmp_path_factory.mktemp("slow"), FEATURES)


def build_with(
    folder: Path,
    numeric: tuple[NumericFeature, ...],
    change_pins: Callable[[list[Row]], list[Row]] = list,
) -> Built:
    log = write_random_log(folder / "event_log", change_pins=change_pins)
    config = config_of(*numeric)
    snapshot = build(folder, config)
    root = local_path(snapshot.uri)
    pin_ids = open_table(root, "pins.arrow")["pin_id"].to_pylist()
    shards = [
        [open_table(root, f"{each.name}/{kind}.arrow") for kind in ("requests", "examples")]
        for each in snapshot.shards
    ]
    known_at: dict[str, int] = {}
    for row in log.impressions:
        earliest = known_at.get(row["request_id"], row["known_at"])
        known_at[row["request_id"]] = min(earliest, row["known_at"])
    shown = [
        (AskedRequest(r["request_id"], r["user_id"], r["impressed_at"], known_at[r["request_id"]]),
         examples["pin_row"].to_pylist()[r["first_example"] :][: r["num_examples"]])
        for requests, examples in shards
        for r in requests.to_pylist()
    ]  # fmt: skip
    told = (log, config, snapshot.training.start_ms, [request for request, _ in shown])
    asked = [Asked(*told, request, pin_ids[row]) for request, rows in shown for row in rows]
    names = shards[0][1].column_names
    columns = {n: np.concatenate([np.asarray(e[n]) for _, e in shards]) for n in names}
    return Built(asked, columns | {"asked_at": np.array([each.at_ms for each in asked])})


def assert_equal(built: Built, feature: NumericFeature, expected: list[float | None]) -> None:
    values = built.columns[numeric_column(feature.name)]
    tolerance = 2e-3 if "similarity" in feature.name else 1e-5
    wanted = np.array([0.0 if value is None else value for value in expected])
    assert values == pytest.approx(wanted, abs=tolerance, rel=1e-6)
    is_missing = np.array([value is None for value in expected])
    if feature.has_flag:
        assert built.columns[numeric_column(feature.inputs[1])].tolist() == is_missing.tolist()
    else:
        assert not is_missing.any()


@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.name)
def test_a_feature_equals_its_slow_reference(built: Built, feature: NumericFeature) -> None:
    expected = [SLOW[feature.name](asked) for asked in built.asked]
    assert_equal(built, feature, expected)
    assert len(set(expected)) > 2
    if feature.has_flag:
        assert 0 < expected.count(None) < len(expected) / 2 or feature.name.startswith("since")


def test_every_feature_of_the_catalogue_has_a_slow_reference() -> None:
    meant = {NumericFeature(name=f.name, **OPTIONS.get(f.name, {})).meaning.name for f in FEATURES}
    own = "<package.module>:<function>"
    assert meant == set(CATALOGUE) - {own}


OPTIONAL: tuple[tuple[dict, Slow], ...] = (
    ({"name": "pin_age", "column": "created_at"}, slow_features.age_by_column),
    ({"name": "user_activity", "days": 2}, lambda asked: slow_features.activity(asked, 2)),
    ({"name": "similarity_best", "num_actions": 2}, lambda asked: slow_features.best(asked, 2)),
    ({"name": "similarity_mean", "num_actions": 3}, lambda asked: slow_features.mean(asked, 3)),
    (
        {"name": "similarity_decayed", "half_life_days": 0.5},
        lambda asked: slow_features.decayed(asked, 0.5),
    ),
    (
        {"name": "session_position", "gap_minutes": 180},
        lambda asked: slow_features.session(asked, 180),
    ),
)


def test_options_reach_the_computation(tmp_path: Path) -> None:
    features = tuple(NumericFeature(**options) for options, _ in OPTIONAL)
    found = build_with(tmp_path, features)
    for feature, (_, slow) in zip(features, OPTIONAL, strict=True):
        assert_equal(found, feature, [slow(asked) for asked in found.asked])


LATE_FROM_MS = to_ms(AS_OF) - 7 * DAY_MS - 5 * HOUR_MS
"""In the middle of the training window, and in the millisecond of a request of such pins."""
OF_PINS = (
    NumericFeature(name="similarity_best"),
    NumericFeature(name="similarity_mean"),
    NumericFeature(name="similarity_decayed"),
    NumericFeature(name="since_last_touch_of_category", category="brand"),
    NumericFeature(name="pin_age", column="created_at"),
    NumericFeature(name="pins.created_at"),
)


def as_known(rows: list[Row], **others: object) -> list[Row]:
    """Return pins of which a third became known in the training window, with that content."""
    late = {"known_at": LATE_FROM_MS, **others}
    return [row | (late if row["pin_id"] % 3 == 0 else {"known_at": START_MS}) for row in rows]


OTHERS = {"embedding": np.arange(32.0, dtype=np.float32), "brand": "red", "created_at": START_MS}


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, np.ndarray]]:
    """The numbers of each example, with the one and the other content."""
    return [
        build_with(
            tmp_path_factory.mktemp("pins"), OF_PINS, functools.partial(as_known, **others)
        ).columns
        for others in ({}, OTHERS)
    ]


@pytest.mark.parametrize("feature", OF_PINS, ids=lambda feature: feature.name)
def test_a_request_is_not_told_what_a_row_of_later_says(
    twice: list[dict[str, np.ndarray]], feature: NumericFeature
) -> None:
    asked_at, names = twice[0]["asked_at"], [numeric_column(name) for name in feature.inputs]
    is_before = asked_at <= LATE_FROM_MS
    assert (asked_at == LATE_FROM_MS).any() and (~is_before).any()
    differs = [twice[0][name] != twice[1][name] for name in names]
    assert not any(each[is_before].any() for each in differs)
    assert any(each[~is_before].any() for each in differs)
