"""Every feature of the catalogue equals its slow reference, and knows nothing of later rows."""

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
from support.random_log import (
    AS_OF,
    START_MS,
    Row,
    build,
    config_of,
    write_random_log,
)
from support.slow_features import SLOW, Asked

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
    log, config = (
        write_random_log(folder / "event_log", change_pins=change_pins),
        config_of(*numeric),
    )
    snapshot = build(folder, config)
    root = local_path(snapshot.uri)
    pin_ids = open_table(root, "pins.arrow")["pin_id"].to_pylist()
    shards = [[open_table(root, f"{s.name}/{f}.arrow") for f in ("requests", "examples")]
              for s in snapshot.shards]  # fmt: skip
    known_at: dict[str, int] = {}
    for row in log.impressions:
        earliest = known_at.get(row["request_id"], row["known_at"])
        known_at[row["request_id"]] = min(earliest, row["known_at"])
    in_windows = {
        r["request_id"]: (r["user_id"], r["impressed_at"], known_at[r["request_id"]])
        for requests, _ in shards
        for r in requests.to_pylist()
    }
    told = (log, config, snapshot.training.start_ms, in_windows)
    asked = []
    for requests, examples in shards:
        pin_rows = examples["pin_row"].to_pylist()
        for one in requests.to_pylist():
            first = one["first_example"]
            for row in pin_rows[first : first + one["num_examples"]]:
                of_request = (one["request_id"], one["user_id"], pin_ids[row], one["impressed_at"])
                asked.append(Asked(*told, *of_request))
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


def test_options_reach_the_computation(tmp_path: Path) -> None:
    features = (
        NumericFeature(name="pin_age", column="created_at"),
        NumericFeature(name="user_activity", days=2),
        NumericFeature(name="similarity_best", num_actions=2),
        NumericFeature(name="similarity_mean", num_actions=3),
        NumericFeature(name="similarity_decayed", half_life_days=0.5),
        NumericFeature(name="session_position", gap_minutes=180),
    )
    found = build_with(tmp_path, features)
    slow = (
        slow_features.age_by_column,
        lambda asked: slow_features.activity(asked, 2),
        lambda asked: slow_features.best(asked, 2),
        lambda asked: slow_features.mean(asked, 3),
        lambda asked: slow_features.decayed(asked, 0.5),
        lambda asked: slow_features.session(asked, 180),
    )
    for feature, function in zip(features, slow, strict=True):
        assert_equal(found, feature, [function(asked) for asked in found.asked])


def test_ages_reach_back_to_the_midnight_four_weeks_before_the_requests_day(built: Built) -> None:
    ages_h = np.expm1(built.columns["num_pin_age"])
    since_midnight_h = built.columns["asked_at"] % DAY_MS / HOUR_MS
    assert (ages_h <= 28 * 24 + since_midnight_h + 0.01).all()
    assert (ages_h > 27 * 24).sum() > 10


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


def as_known(rows: list[Row]) -> list[Row]:
    """Return the pins with times: a third of them became known in the training window."""
    return [row | {"known_at": START_MS if row["pin_id"] % 3 else LATE_FROM_MS} for row in rows]


def otherwise(rows: list[Row]) -> list[Row]:
    """Return the same with other content in the rows that became known late."""
    other = {"red": "blue", "blue": "red"}
    return [
        row
        if row["known_at"] == START_MS
        else row
        | {
            "embedding": np.roll(row["embedding"], 5),
            "brand": other.get(row["brand"], row["brand"]),
            "created_at": START_MS + 5 * DAY_MS,
        }
        for row in as_known(rows)
    ]


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, np.ndarray]]:
    """The numbers of each example, with the one and the other content."""
    folders = (tmp_path_factory.mktemp("pins") for _ in range(2))
    return [
        build_with(folder, OF_PINS, change).columns
        for folder, change in zip(folders, (as_known, otherwise), strict=True)
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
