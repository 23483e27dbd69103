"""Years of a gate's decisions: what its policy makes of recipes that creep, and of fresh data.

Each cycle trains a challenger, and the fresh anchor where the recipes differ. Every trained model
has noise of its seed; the champion loses `decay` with each cycle of its age; a holdout measures
every model with noise of its own. The policy is the real one: `validation.model_gate.policy`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pipelines.contracts.config import ModelGateConfig
from pipelines.contracts.judgement import Promoted
from pipelines.recipes import completejourney
from validation.model_gate.policy import TWO_SIDED_95, Change, Estimate, Evidence, choose, pool

CYCLES = 26


@dataclass(frozen=True)
class Setting:
    """One world in which a year is lived."""

    error: float = 0.0035  # of a measured relative change, on one holdout
    decay: float = 0.003  # of the champion, per cycle
    seed_noise: float = 0.002  # standard deviation of a trained model's quality


@dataclass(frozen=True)
class Year:
    """What came of it."""

    mean_quality: float  # of what served, against the accepted recipe of the start, always fresh
    was_promoted: tuple[bool, ...]  # per cycle


def live(recipe: Callable[[int], float], setting: Setting, rng: np.random.Generator) -> Year:
    """Return one year; `recipe` gives the true value of the challenger's recipe in each cycle."""
    config: ModelGateConfig = completejourney().model_gate
    anchor = 0.0  # the value of the accepted recipe
    champion, age = float(rng.normal(0, setting.seed_noise)), 0
    thetas: list[Estimate] = []
    phis: list[Estimate] = []
    deltas: dict[tuple[float, float], list[Estimate]] = {}
    qualities, promotions = [], []
    for cycle in range(CYCLES):
        age += 1
        value = recipe(cycle)
        challenger = value + float(rng.normal(0, setting.seed_noise))
        serving = champion - setting.decay * age
        noise = rng.normal(0, setting.error / math.sqrt(2), 3)
        theta = Estimate(challenger - serving + noise[0] - noise[1], setting.error)
        thetas.append(theta)
        is_same = value == anchor
        fresh, delta_change, phi_change = 0.0, None, None
        if not is_same:
            fresh = anchor + float(rng.normal(0, setting.seed_noise))
            seeds = math.sqrt(setting.error**2 + 2 * setting.seed_noise**2)
            delta = Estimate(challenger - fresh + noise[0] - noise[2], seeds)
            known = deltas.setdefault((value, anchor), [])
            known.append(delta)
            delta_change = Change(delta, pool(known))
            phi = Estimate(fresh - serving + noise[2] - noise[1], setting.error)
            phis.append(phi)
            phi_change = Change(phi, pool(phis))
        found = choose(
            Evidence(Change(theta, pool(thetas)), delta_change, phi_change, is_anchor_sound=True),
            config,
        )
        if found.promoted is not Promoted.NONE:
            is_challenger = found.promoted is Promoted.CHALLENGER
            champion, age = (challenger if is_challenger else fresh), 0
            thetas, phis = [], []
            if is_challenger and delta_change and delta_change.pooled.low(TWO_SIDED_95) > 0:
                anchor = value
        qualities.append(champion - setting.decay * age)
        promotions.append(found.promoted is not Promoted.NONE)
    return Year(float(np.mean(qualities)), tuple(promotions))


def years(
    recipe: Callable[[int], float], setting: Setting, num_years: int, seed: int
) -> list[Year]:
    """Return many years with the same recipe."""
    rng = np.random.default_rng(seed)
    return [live(recipe, setting, rng) for _ in range(num_years)]
