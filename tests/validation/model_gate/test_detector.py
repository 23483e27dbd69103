"""The detector of a loss: worked by hand, in a hundred years without any, and how soon it sees."""

import math

import numpy as np
import pytest

from validation.model_gate.detector import Day, evidence_of_loss, mean_change, spread_of

ERROR, LIFE = 0.01, 14
YEAR = 365


def lived(rng: np.random.Generator, num: int, loss: float = 0, at: int = 0, sd: float = ERROR):
    """Return a champion's days, of which some from one on have a loss."""
    changes = rng.normal(0, sd, num)
    changes[at:] -= loss
    return [Day(change, ERROR) for change in changes]


def test_the_evidence_is_that_of_the_formula() -> None:
    days, size, error = [Day(-0.02, 0.01, 0.001), Day(-0.01, 0.01)], 0.02, 0.01
    one, other = (math.exp((size * loss - size**2 / 2) / error**2) for loss in (0.02 - 0.001, 0.01))
    expected = [one / 100, (1 + one) * other / 100]
    assert evidence_of_loss(days, 100, (size,)) == pytest.approx(expected)
    both = evidence_of_loss(days[:1], 100, (size, 0.04))
    more = math.exp((0.04 * 0.019 - 0.04**2 / 2) / error**2)
    assert both == pytest.approx([(one + more) / 200])
    assert evidence_of_loss([], 100) == []


def test_days_that_vary_more_than_their_errors_say_are_evidence_of_less() -> None:
    calm = [Day(-0.01, 0.01)] * 12
    wild = [Day(-0.01 + 0.04 * (-1) ** n, 0.01) for n in range(11)] + [calm[0]]
    steps = [evidence_of_loss(days, YEAR) for days in (calm, wild)]
    gains = [each[-1] / (each[-2] + 1 / YEAR) for each in steps]
    assert gains[0] > gains[1] > 1 or gains[1] < 1.5


@pytest.mark.parametrize("spread", [1.0, 1.2, 2.0])
def test_in_a_hundred_years_without_a_loss_there_are_no_hundred_alarms(spread: float) -> None:
    """Where days vary twice as much as their errors say, days of earlier champions tell that."""
    rng, before, alarms = np.random.default_rng(5), list[float](), 0
    for _ in range(100 * YEAR // LIFE):
        days = lived(rng, LIFE, sd=spread * ERROR)
        alarms += max(evidence_of_loss(days, YEAR, before=before)) >= 1
        before = [*before, *spread_of(days)][-3 * LIFE :]
    assert alarms <= 100


@pytest.mark.parametrize(("loss", "most"), [(0.02, 5), (0.05, 2)])
def test_a_loss_is_seen_within_days_of_its_beginning(loss: float, most: int) -> None:
    rng, delays = np.random.default_rng(6), []
    for _ in range(200):
        at = int(rng.integers(0, LIFE))
        shares = evidence_of_loss(lived(rng, 40, loss, at), YEAR)
        delays.append(next((n for n, e in enumerate(shares) if e >= 1 and n >= at), 40) - at + 1)
    assert np.median(delays) <= most


def test_the_means_interval_holds_on_all_days_at_once() -> None:
    rng, missed = np.random.default_rng(7), 0
    for _ in range(300):
        days = lived(rng, 60)
        found = [mean_change(days[:n], 0.95) for n in range(1, len(days))]
        missed += any(not each.low <= 0 <= each.high for each in found)
    assert missed / 300 <= 0.05
    assert found[-1].high - found[-1].low < 0.012
