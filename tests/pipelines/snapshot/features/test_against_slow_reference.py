"""Every feature of the catalogue equals its slow reference on a random log."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.features.catalogue import CATALOGUE
from pipelines.contracts.features.numeric import NumericFeature
from pipelines.contracts.schemas import numeric_column
from pipelines.contracts.snapshot_files import open_table
from pipelines.contracts.time import DAY_MS, HOUR_MS
from pipelines.storage import local_path
from support import slow_features
from support.random_log import RandomLog, build, config_of, write_random_log
from support.slow_features import SLOW, Asked

OPTIONS = {"session_position": {"gap_minutes": 600}, "since_last_touch_of_category": {}}
OPTIONS["since_last_touch_of_category"] = {"category": "brand"}
FEATURES = tuple(NumericFeature(name=name, **OPTIONS.get(name, {})) for name in SLOW)


@dataclass(frozen=True)
class Built:
    log: RandomLog
    snapshot: Snapshot
    asked: list[Asked]
    columns: dict[str, np.ndarray]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build_with(tmp_path_factory.mktemp("slow"), FEATURES)


def build_with(folder: Path, numeric: tuple[NumericFeature, ...]) -> Built:
    log = write_random_log(folder / "event_log")
    config = config_of(*numeric)
    snapshot = build(folder, config)
    root = local_path(snapshot.uri)
    shards = [[open_table(root, f"{s.name}/{f}.arrow") for f in ("requests", "examples")]
              for s in snapshot.shards]  # fmt: skip
    pin_ids = open_table(root, "pins.arrow")["pin_id"].to_pylist()
    requests = [row for table, _ in shards for row in table.to_pylist()]
    known_at: dict[str, int] = {}
    for row in log.impressions:
        earliest = known_at.get(row["request_id"], row["known_at"])
        known_at[row["request_id"]] = min(earliest, row["known_at"])
    in_windows = {
        r["request_id"]: (r["user_id"], r["impressed_at"], known_at[r["request_id"]])
        for r in requests
    }
    asked = [
        Asked(
            log,
            config,
            snapshot.training.start_ms,
            in_windows,
            request["request_id"],
            request["user_id"],
            pin_ids[row["pin_row"]],
            request["impressed_at"],
        )
        for table, examples in shards
        for request in table.to_pylist()
        for row in examples.slice(request["first_example"], request["num_examples"]).to_pylist()
    ]
    names = shards[0][1].column_names
    columns = {n: np.concatenate([np.asarray(e[n]) for _, e in shards]) for n in names}
    return Built(log, snapshot, asked, columns)


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
    since_midnight_h = np.array([asked.at_ms % DAY_MS / HOUR_MS for asked in built.asked])
    assert (ages_h <= 28 * 24 + since_midnight_h + 0.01).all()
    assert (ages_h > 27 * 24).sum() > 10
