"""The long-term line: worked by hand, and held against years in which nothing or much fell."""

import math
from datetime import UTC, datetime

import numpy as np
import pytest

from pipelines.contracts.reasons import POPULARITY, REGRESSION, LinePoint
from support.judgements import baseline_facts
from validation.model_gate.long_line import THRESHOLD, evidence_of_fall, points_of
from validation.model_gate.policy import Estimate

START, MARGIN, NOISE = datetime(2017, 1, 1, tzinfo=UTC), 0.01, 0.002


def line(*values: float, reference: str = REGRESSION, error: float = 0.005) -> list[LinePoint]:
    of = {"reference": reference, "as_of": START, "error": error}
    return [LinePoint(value=value, **of) for value in values]


def test_the_evidence_of_two_champions_is_that_of_the_formula() -> None:
    fall, variance = 0.03 + math.log(0.99), 2 * (0.005**2 + 0.002**2)
    ratios = [math.exp((k * fall - k**2 / 2) / variance) for k in (0.005, 0.01, 0.02)]
    found = evidence_of_fall(line(0.05, 0.02), MARGIN, NOISE)
    assert found == pytest.approx(sum(ratios) / 3)
    others = [*line(0.05, 0.02), *line(0.9, 0.1, reference=POPULARITY)]
    assert evidence_of_fall(others, MARGIN, NOISE) == found
    assert evidence_of_fall(line(0.05), MARGIN, NOISE) == evidence_of_fall([], MARGIN, NOISE) == 0


@pytest.mark.parametrize(
    ("level", "is_lost"),
    [
        (lambda cycle: 0.0, False),
        (lambda cycle: -0.01 * (cycle >= 13), False),  # just the margin
        (lambda cycle: 0.002 * cycle, False),
        (lambda cycle: -0.002 * cycle, True),  # no step is beyond what a verdict allows
        (lambda cycle: 0.004 * min(cycle, 26 - cycle), True),  # it has fallen from its best
    ],
)
def test_what_fell_by_more_than_the_margin_is_found_and_what_did_not_is_left_alone(
    level, is_lost: bool
) -> None:
    rng, lost = np.random.default_rng(5), 0
    for _ in range(20):
        values = [level(cycle) + rng.normal(0, 0.0054) for cycle in range(26)]
        lost += any(
            evidence_of_fall(line(*values[:num]), MARGIN, NOISE) >= THRESHOLD
            for num in range(2, 27)
        )
    assert lost >= 19 if is_lost else lost == 0


def test_a_point_is_of_the_model_that_is_promoted() -> None:
    facts = [
        baseline_facts(REGRESSION, change=(0.0102, 0.0298)),
        baseline_facts("newest first", change=(0.4, 0.6)),
        baseline_facts(POPULARITY, change=None),
    ]
    [mine] = points_of(facts, START)
    assert (mine.reference, mine.value) == (REGRESSION, pytest.approx(math.log(1.02)))
    assert mine.error == pytest.approx(0.005 / 1.02, rel=1e-3)
    [anchor] = points_of(facts, START, Estimate(-0.01, 0.004))
    assert anchor.value == pytest.approx(math.log(1.02 / 0.99))
    assert anchor.error == pytest.approx(math.hypot(0.005 / 1.02, 0.004 / 0.99), rel=1e-3)
