"""The first appearance of pins, over parts in any order."""

import numpy as np

from pipelines.event_log.first_seen import NEVER_MS, FirstSeen


def test_the_earliest_row_of_any_part_counts() -> None:
    one = FirstSeen.of(np.array([7, 3, 7]), np.array([50, 40, 30]))
    two = FirstSeen.of(np.array([3, 9]), np.array([10, 20]))
    for parts in ([one, two], [two, one]):
        found = FirstSeen.merge(parts)
        assert found.pin_id.tolist() == [3, 7, 9]
        assert found.known_at.tolist() == [10, 30, 20]
    assert found.at(np.array([3, 4, 9, 99])).tolist() == [10, NEVER_MS, 20, NEVER_MS]


def test_nothing_seen_is_never() -> None:
    assert FirstSeen.merge([]).at(np.array([1, 2])).tolist() == [NEVER_MS, NEVER_MS]
