"""The lift that is plausible: by hand, of leaks and of honest gains."""

import numpy as np
import pytest

from validation.model_gate.policy import plausible_lift

ERROR, SEEDS = 0.0073, 0.002  # The sample's in most cycles, and the recipe's.
LUCK = np.hypot(ERROR, np.sqrt(2) * SEEDS)


def test_what_is_usual_and_three_times_what_spreads_it_is_plausible() -> None:
    assert plausible_lift(0.004, 0.003 / np.sqrt(2), (0.01, 0.02, 0.011)) == pytest.approx(0.026)
    # Cycles that lost make no gain less plausible; those that differ by more widen the bound.
    assert plausible_lift(0.004, 0.0, (-0.01, -0.01)) == pytest.approx(3 * 1.4826 * 0.01)
    past = (0.0, 0.03, 0.06)
    assert plausible_lift(0.004, 0.0, past) == pytest.approx(0.03 + 3 * 1.4826 * 0.03)
    assert plausible_lift(0.004, 0.0, (), first=0.1) == pytest.approx(0.112)


@pytest.mark.parametrize(
    ("gain", "least", "most"),
    [
        (0.004, 0.0, 0.01),  # an ordinary cycle, as those before it
        (0.017, 0.0, 0.15),  # what 5 % of the labels bring cannot be told from a better recipe
        (0.02, 0.05, 0.25),
        (0.04, 0.7, 0.95),  # better than any recipe before: somebody looks, whatever it is
        (0.06, 0.98, 1.0),
        (0.204, 1.0, 1.0),  # all labels
    ],
)
def test_after_five_ordinary_cycles_leaks_wait_and_ordinary_gains_do_not(
    gain: float, least: float, most: float
) -> None:
    rng = np.random.default_rng(5)
    past, found = rng.normal(0.004, LUCK, (2000, 5)), rng.normal(gain, LUCK, 2000)
    rows = zip(past, found, strict=True)
    share = np.mean([one > plausible_lift(ERROR, SEEDS, tuple(row)) for row, one in rows])
    assert least <= share <= most
