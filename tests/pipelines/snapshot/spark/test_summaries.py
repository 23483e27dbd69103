"""A summary travels small, and says afterwards what it said before."""

import numpy as np

from pipelines.contracts.time import DAY_MS
from pipelines.event_log.first_seen import FirstSeen
from pipelines.event_log.popularity import ActionCounts, trailing_popularity
from pipelines.event_log.rules import FoundWidth
from pipelines.snapshot.plan import WindowCounts
from pipelines.snapshot.spark.summaries import merge_packed, pack, unpack
from pipelines.snapshot.spill import SpillSummary, merge_summaries

FIRST_DAY = 20_000


def summary(seed: int, count: int = 5_000) -> SpillSummary:
    rng = np.random.default_rng(seed)
    pin_id = rng.integers(0, 2**62, 50)[rng.integers(0, 50, count)]
    acted_at = FIRST_DAY * DAY_MS + rng.integers(0, 3 * DAY_MS, count)
    known_at = acted_at + rng.integers(0, DAY_MS, count)
    return SpillSummary(
        pin_ids=np.unique(pin_id),
        wanted_actions=(ActionCounts.of(pin_id, acted_at, known_at),),
        first_seen=(FirstSeen.of(pin_id, acted_at, known_at),),
        num_impressions=WindowCounts(3, seed),
        num_immature_impressions=seed,
        user_widths=(FoundWidth("users/part-0.parquet", "user_id=1", 8),),
    )


def assert_same(found: SpillSummary, expected: SpillSummary) -> None:
    for name in ("pin_ids", "num_impressions", "num_immature_impressions", "user_widths"):
        assert np.array_equal(getattr(found, name), getattr(expected, name)), name
    for name, rows in (("wanted_actions", ActionCounts), ("first_seen", FirstSeen)):
        once = vars(rows.merge(getattr(found, name)))
        for column, values in vars(rows.merge(getattr(expected, name))).items():
            assert np.array_equal(once[column], values), (name, column)


def test_it_says_afterwards_what_it_said_before() -> None:
    for found in (summary(1), SpillSummary()):
        assert_same(unpack(pack(found)), found)


def test_counts_of_the_same_pin_and_days_are_one_row() -> None:
    one = ActionCounts.of(*np.array([[7, 7, 9], [5, 6, 5], [8, 8, 8]]) * np.int64(1))
    added = ActionCounts.merge([one, one])
    assert added.pin_id.tolist() == [7, 9]
    assert added.count.tolist() == [4, 2]


def test_what_is_counted_of_all_parts_is_the_same() -> None:
    parts = [summary(seed) for seed in range(4)]
    whole, travelled = merge_summaries(parts), merge_packed(map(pack, parts))
    days, windows = np.arange(FIRST_DAY, FIRST_DAY + 6), (1, 3)
    expected, found = (
        trailing_popularity(each.wanted_actions, each.pin_ids, days, windows)
        for each in (whole, travelled)
    )
    assert np.array_equal(found.is_counted.words, expected.is_counted.words)
    assert len(found.totals[1]) > 500
    for window in windows:
        assert np.array_equal(found.totals[window], expected.totals[window])
    seen = [FirstSeen.merge(each.first_seen).known_at for each in (travelled, whole)]
    assert np.array_equal(*seen)


def test_it_travels_in_a_fraction_of_its_size() -> None:
    rng = np.random.default_rng(5)
    pins = np.sort(rng.choice(10**9, 20_000, replace=False))
    pin_id = np.repeat(pins, 30)
    known_at = FIRST_DAY * DAY_MS + np.tile(np.arange(30), 20_000) * DAY_MS
    known_at += rng.integers(0, DAY_MS, len(pin_id))
    seen = FirstSeen.of(pin_id, known_at, known_at)
    found = SpillSummary(first_seen=(seen,))
    size = sum(values.nbytes for values in vars(seen).values())
    packed = sum(len(each.content) for each in pack(found).first_seen)
    assert packed < size / 4
