"""Years in which recipes change a guarded metric too, by the real rules on three models.

Target and guarded metric are measured with errors of their own. What is left out: users who return,
segments and heads.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pipelines.contracts.config import ModelGateConfig
from pipelines.contracts.judgement import Promoted
from validation.model_gate.intervals import smallest_detectable_change
from validation.model_gate.policy import (
    TWO_SIDED_95,
    Change,
    Estimate,
    Evidence,
    choose,
    is_spent,
    is_surely_better,
    is_within,
)
from validation.model_gate.pooling import STEP_OF_MARGIN, end_of_walk
from validation.model_gate.years import CYCLES, pool, pool_line

BOUND = 0.02
"""The guardrail of the recipe `production`."""


@dataclass(frozen=True)
class Creep:
    """What each cycle's recipe changes, and how well a holdout sees it."""

    target: float  # of the target metric, a cycle
    hides: float  # of the guarded metric, a cycle
    hide_error: float
    target_error: float = 0.0035
    decay: float = 0.003
    noise: tuple[float, float] = (0.002, 0.004)  # of seeds, on target and hides


class Ended(NamedTuple):
    """How a year ended."""

    target: float  # of what serves, against the first recipe
    hides: float
    held: float  # share of cycles that a guardrail held back


def live_hiding_year(
    creep: Creep, config: ModelGateConfig, rng: np.random.Generator, has_memory: bool = True
) -> Ended:
    """Return a year; without memory each pair is judged by itself alone."""
    noise, error = np.array(creep.noise), np.array([creep.target_error, creep.hide_error])

    def train(value: np.ndarray) -> np.ndarray:
        return value + rng.normal(0, noise)

    anchor, age, held = np.zeros(2), 0, 0
    champion = train(anchor)
    thetas, deltas = list[tuple[float, Estimate]](), list[tuple[float, Estimate]]()
    phis, hides, spent = list[Estimate](), list[Estimate](), Estimate(0.0, 0.0)
    for cycle in range(1, CYCLES + 1):
        age += 1
        recipe = cycle * np.array([creep.target, creep.hides])
        models = [train(recipe), champion - [creep.decay * age, 0], train(anchor)]
        seen = [model + rng.normal(0, error / math.sqrt(2)) for model in models]
        ours, theirs, fresh = seen
        both = math.hypot(creep.target_error, math.sqrt(2) * creep.noise[0])
        thetas.append((recipe[0], Estimate(ours[0] - theirs[0], creep.target_error)))
        deltas.append((recipe[0], Estimate(ours[0] - fresh[0], both)))
        phis.append(Estimate(fresh[0] - theirs[0], creep.target_error))
        hides.append(Estimate(ours[1] - fresh[1], creep.hide_error))
        values, variances = np.array([(each.value, each.error**2) for each in hides[::-1]]).T
        now = end_of_walk(values, variances, np.arange(len(hides)), STEP_OF_MARGIN * BOUND)
        total = Estimate(spent.value + now.value, math.hypot(spent.error, now.error))
        pairs = hides[-1], Estimate(ours[1] - theirs[1], creep.hide_error)
        is_held = any(_is_beyond(each) for each in pairs)
        is_held |= has_memory and is_spent(total, -math.inf, BOUND)
        held += is_held
        (of_theta, _), (of_delta, is_worse) = (
            pool_line(each, STEP_OF_MARGIN * config.recipe_margin) for each in (thetas, deltas)
        )
        delta = Change(deltas[-1][1], of_delta)
        evidence = Evidence(
            Change(thetas[-1][1], of_theta),
            delta,
            Change(phis[-1], pool(phis)),
            is_held_back=is_worse or is_held,
            is_anchor_sound=True,
        )
        promoted = choose(evidence, config, config.margin).promoted
        if promoted is Promoted.NONE:
            continue
        champion = models[0] if promoted is Promoted.CHALLENGER else models[2]
        age, thetas, phis = 0, [], []
        is_accepted = promoted is Promoted.CHALLENGER and is_surely_better(delta)
        if is_accepted and (not has_memory or is_within(total, -math.inf, BOUND)):
            anchor, spent, deltas, hides = recipe, total, [], []
    return Ended(float(champion[0]), float(champion[1]), held / CYCLES)


def _is_beyond(change: Estimate) -> bool:
    """Return what one pair's guardrail says: surely beyond, or likely where it would be seen."""
    is_seen = smallest_detectable_change(change.error, 0.95) <= BOUND
    return change.low(TWO_SIDED_95) > BOUND or (change.value > BOUND and is_seen)


def mean_of(
    creep: Creep, config: ModelGateConfig, num_years: int, seed: int, has_memory: bool = True
) -> Ended:
    """Return the mean of many years."""
    rng = np.random.default_rng(seed)
    years = [live_hiding_year(creep, config, rng, has_memory) for _ in range(num_years)]
    return Ended(*np.mean(years, axis=0).tolist())
