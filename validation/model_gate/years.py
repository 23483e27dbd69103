"""Years of a gate's decisions, and what a recipe's thresholds can and cannot see: operating curves.

Each cycle trains a challenger, and the fresh anchor where the recipes differ. Every trained model
has noise of its seed; the champion loses `decay` with each cycle of its age; a holdout measures
every model with noise of its own. The rules are the real ones (`validation.model_gate.policy`);
what is left out is that users return, so that cycles are independent here. Used for the operating
curve of each cycle and by tests/benchmarks/bench_gate.py.
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pipelines.contracts.config import ModelGateConfig
from pipelines.contracts.judgement import Decision, OperatingPoint, Promoted
from pipelines.contracts.reasons import ONE_SIDED_95
from validation.model_gate.policy import (
    Change,
    Estimate,
    Evidence,
    Outcome,
    choose,
    is_surely_better,
)
from validation.model_gate.pooling import STEP_OF_MARGIN, disagrees, weights_of

CYCLES = 26
"""Cycles of a fortnight in a year."""
TRUE_CHANGES = tuple(round(step * 0.0025, 4) for step in range(-8, 9))
"""From -2 % to +2 % in steps of a quarter of a percent."""
ASSUMED_DECAY = 0.003
"""What a champion loses per cycle of its age where nothing was measured; the sample's order."""
NUM_YEARS = 120


@dataclass(frozen=True)
class Setting:
    """One world in which a year is lived."""

    error: float = 0.0035  # of a measured relative change, on one holdout
    decay: float = 0.003  # of the champion, per cycle
    seed_noise: float = 0.002  # standard deviation of a trained model's quality


class Year(NamedTuple):
    """What came of it, by cycle."""

    qualities: tuple[float, ...]  # of what serves, against the first recipe, always fresh
    outcomes: tuple[Outcome, ...]


def pool(estimates: Sequence[Estimate]) -> Estimate:
    """Return the mean of independent estimates, weighted by the inverse of their variances.

    Of all weighted means it has the smallest variance, 1 / sum(1 / error^2); no error is zero.
    """
    weights = [1 / e.error**2 for e in estimates]
    total = math.fsum(weights)
    value = math.fsum(w * e.value for w, e in zip(weights, estimates, strict=True)) / total
    return Estimate(value, math.sqrt(1 / total))


def pool_line(known: Sequence[tuple[float, Estimate]], step: float) -> tuple[Estimate, bool]:
    """Return what is known of the newest recipe, and whether its line is together surely worse.

    Args:
        known: True values of the recipes, which tell them apart, and what was measured, the newest
            last.
        step: As `pooling.weights_of` takes it.
    """
    newest = known[-1][0]
    own, others = ([e for value, e in known if (value == newest) == it] for it in (True, False))
    if not others or disagrees(pool(own), pool(others)):
        return pool(own), False
    recipes = [value for value, _ in reversed(known)]
    changes = np.cumsum([0, *(a != b for a, b in itertools.pairwise(recipes))])
    steps = np.where(np.array(recipes) == newest, 0, changes)
    values, errors = np.array([(e.value, e.error) for _, e in reversed(known)]).T
    weights = weights_of(errors**2, steps, step)
    moved = step**2 * weights @ np.minimum.outer(steps, steps) @ weights
    pooled = Estimate(float(weights @ values), math.sqrt(weights**2 @ errors**2 + moved))
    return pooled, pool([e for _, e in known]).high(ONE_SIDED_95) < 0


def _live_year(
    recipe: Callable[[int], float],
    setting: Setting,
    config: ModelGateConfig,
    rng: np.random.Generator,
) -> Year:
    """Return one year; the gate remembers what it found, from cycle to cycle."""

    def train(value: float) -> float:
        """Return a model's quality: its recipe's value and the noise of its seed."""
        return value + float(rng.normal(0, setting.seed_noise))

    anchor, champion, age = 0.0, train(0.0), 0  # The accepted recipe's value; what serves.
    thetas, phis = list[tuple[float, Estimate]](), list[Estimate]()
    deltas = defaultdict[float, list[tuple[float, Estimate]]](list)
    step = STEP_OF_MARGIN * config.recipe_margin
    outcomes, qualities = [], []
    for cycle in range(CYCLES):
        age += 1
        value, serving = recipe(cycle), champion - setting.decay * age
        challenger, fresh = train(value), 0.0
        noise = rng.normal(0, setting.error / math.sqrt(2), 3)
        change = challenger - serving + noise[0] - noise[1]
        thetas.append((value, Estimate(change, setting.error)))
        delta, phi, is_line_worse = None, None, False
        if value != anchor:
            fresh, known = train(anchor), deltas[anchor]
            seeds = math.sqrt(setting.error**2 + 2 * setting.seed_noise**2)
            known.append((value, Estimate(challenger - fresh + noise[0] - noise[2], seeds)))
            phis.append(Estimate(fresh - serving + noise[2] - noise[1], setting.error))
            pooled, is_line_worse = pool_line(known, step)
            delta, phi = Change(known[-1][1], pooled), Change(phis[-1], pool(phis))
        theta = Change(thetas[-1][1], pool_line(thetas, step)[0])
        evidence = Evidence(theta, delta, phi, is_held_back=is_line_worse, is_anchor_sound=True)
        found = choose(evidence, config, config.margin)
        if found.promoted is not Promoted.NONE:
            is_challenger = found.promoted is Promoted.CHALLENGER
            champion, age, thetas, phis = challenger if is_challenger else fresh, 0, [], []
            if is_challenger and delta is not None and is_surely_better(delta):
                anchor = value
        outcomes.append(found)
        qualities.append(champion - setting.decay * age)
    return Year(tuple(qualities), tuple(outcomes))


def live_years(
    recipe: Callable[[int], float],
    setting: Setting,
    config: ModelGateConfig,
    num_years: int,
    seed: int,
) -> list[Year]:
    """Return many years; `recipe` gives the true value of the challenger's recipe in each cycle."""
    rng = np.random.default_rng(seed)
    return [_live_year(recipe, setting, config, rng) for _ in range(num_years)]


def operating_curve(error: float, config: ModelGateConfig) -> tuple[OperatingPoint, ...]:
    """Return one point for each true change.

    Args:
        error: Standard error of the target metric's change on one holdout of this size, above 0.
        config: The recipe's thresholds.
    """
    setting = Setting(error=error, decay=ASSUMED_DECAY, seed_noise=config.seed_noise)
    points = []
    for change in TRUE_CHANGES:
        recipe = dict.fromkeys(range(CYCLES), change).__getitem__
        years = live_years(recipe, setting, config, NUM_YEARS, config.seed)
        decisions = [outcome.decision for year in years for outcome in year.outcomes]
        points.append(
            OperatingPoint(
                true_change=change,
                promoted=decisions.count(Decision.PROMOTE) / len(decisions),
                rejected=decisions.count(Decision.REJECT) / len(decisions),
                year_quality=float(np.mean([year.qualities for year in years])),
            )
        )
    return tuple(points)
