import pytest

from support.comparisons import CONFIG
from validation.model_gate.years import TRUE_CHANGES, operating_curve

SURE, BLIND = 0.001, 0.02


@pytest.fixture(scope="module")
def curves() -> dict[float, dict[float, tuple[float, float, float]]]:
    return {
        error: {
            point.true_change: (point.promoted, point.rejected, point.year_quality)
            for point in operating_curve(error, CONFIG)
        }
        for error in (SURE, BLIND)
    }


def test_a_holdout_that_sees_well_promotes_what_is_better_and_rejects_what_is_worse(
    curves: dict[float, dict[float, tuple[float, float, float]]],
) -> None:
    seen = curves[SURE]
    assert tuple(seen) == TRUE_CHANGES
    assert seen[0.01][0] > 0.95 and seen[0.01][1] == 0
    assert seen[-0.01][1] > 0.95 and seen[-0.01][0] < 0.01
    assert seen[0.0][0] > 0.95  # the accepted recipe itself


def test_a_worse_recipe_costs_next_to_nothing_over_a_year_and_a_better_one_is_kept(
    curves: dict[float, dict[float, tuple[float, float, float]]],
) -> None:
    seen = curves[SURE]
    assert min(quality for _, _, quality in seen.values()) > -0.005
    assert seen[0.02][2] > 0.018


def test_a_holdout_that_sees_nothing_decides_seldom(
    curves: dict[float, dict[float, tuple[float, float, float]]],
) -> None:
    blind, sure = curves[BLIND], curves[SURE]
    assert blind[0.0][1] < 0.01
    for change in (-0.005, 0.005):
        promoted, rejected, _ = blind[change]
        assert promoted < 0.3
        assert rejected < 0.3  # by what is pooled over a year
    assert blind[-0.005][2] < sure[-0.005][2]  # it costs freshness
