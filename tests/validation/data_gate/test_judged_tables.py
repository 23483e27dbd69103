"""A day's label rate: what is missing stops a cycle, and what was not launched yet does not."""

import numpy as np

from validation.data_gate.judged_tables import rate_shares
from validation.data_gate.measures import Measures


def shares(*days: tuple[int, int, int]) -> dict[str, list[float]]:
    """Return the shares of days with (examples, repins, likes): of all heads, and of launched ones.

    Repin is the main head.
    """
    measures = Measures(labels_per_day={n: np.array(day) for n, day in enumerate(days)})
    return {"all": list(rate_shares(measures).values()),
            "launched": list(rate_shares(measures, 0).values())}  # fmt: skip


def test_a_head_that_is_launched_within_the_window_is_told_and_stops_nothing() -> None:
    found = shares(*[(1000, 100, 0)] * 5, *[(1000, 100, 50)] * 9)
    assert found == {"all": [0.0] * 5 + [1.0] * 9, "launched": [1.0] * 14}


def test_a_launched_head_that_is_missing_on_a_day_stops_the_cycle() -> None:
    found = shares(*[(1000, 100, 50)] * 5, (1000, 100, 0), *[(1000, 100, 50)] * 5)
    assert found["launched"][5] == 0.0


def test_days_without_any_action_and_those_without_the_main_head_stop_it_also_at_the_start() -> (
    None
):
    assert shares((1000, 0, 0), *[(1000, 100, 50)] * 9)["launched"][0] == 0.0
    assert shares((1000, 0, 50), *[(1000, 100, 50)] * 9)["launched"][0] == 0.0
