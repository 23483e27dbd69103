"""Which model is promoted, given what is known of three: a pure function with a derivation.

A cycle has up to three models: the *champion* that serves, the *challenger* that was trained now by
the recipe on trial, and the *fresh anchor*, the last accepted recipe trained now on the same rows.
Three relative changes of the target metric follow:

- theta, challenger against champion: what a promotion would change for users;
- delta, challenger against fresh anchor: what the change of recipe is worth, freshness taken out;
- phi, fresh anchor against champion: what fresh data is worth.

docs/statistics.md derives the rules, and `validation.model_gate.years` lives years of them. Not for
estimating the changes (`validation.model_gate.comparison`) nor for bounds on other metrics
(`validation.model_gate.examine`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, median

from pipelines.contracts.config import ModelGateConfig
from pipelines.contracts.judgement import Decision, Promoted
from pipelines.contracts.reasons import ONE_SIDED_95

TWO_SIDED_95 = 1.96
CODE_SHARE = 0.4
"""Part of the recipe margin that a change of code alone may lose: nobody wants that, and the fresh
anchor serves meanwhile. Of codes that are 0.5 % worse, at most 5 % are promoted twice in a year."""
FALSE_PROMOTIONS = 0.05
"""How often a model that is exactly at a margin is shown to be above it, at the first try."""
_IMPLAUSIBLE = 3.0
"""Standard deviations above what earlier cycles found, from which on a person looks for a leak."""
FEWEST_LIFTS = 4
"""With fewer earlier cycles nobody knows what is usual."""
_LATER_TRIES = 0.5
"""All later tries on one holdout add at most this share of it, however many they are."""


@dataclass(frozen=True)
class Estimate:
    """A relative change with its standard error."""

    value: float
    error: float

    def low(self, z: float) -> float:
        """Return the lower end, z standard errors down."""
        return self.value - z * self.error

    def high(self, z: float) -> float:
        """Return the upper end, z standard errors up."""
        return self.value + z * self.error


@dataclass(frozen=True)
class Change:
    """One pair's change: on this cycle's holdout, and pooled with earlier cycles of the pair."""

    now: Estimate
    pooled: Estimate


@dataclass(frozen=True)
class Evidence:
    """What the policy is told."""

    theta: Change | None  # None: the comparison is void, or has no change.
    delta: Change | None  # None: the challenger has the anchor's recipe, or no anchor was trained.
    phi: Change | None  # None with `delta`.
    is_broken: bool = False  # The challenger breaks a bound, or would not serve.
    is_held_back: bool = False  # It may break one, or a number is missing, or a doubt stands.
    is_anchor_sound: bool = False  # The fresh anchor holds every bound and would serve.
    anchor_margin: float | None = None  # Of the accepted recipe; None: the run's.
    num_tries: int = 1  # Models that were judged on this holdout, the challenger included.


@dataclass(frozen=True)
class Outcome:
    """What is decided of the challenger, and which model takes the champion's place."""

    decision: Decision
    promoted: Promoted


def for_code(config: ModelGateConfig) -> ModelGateConfig:
    """Return the thresholds for a challenger that differs from the fresh anchor in code alone."""
    return config.model_copy(update={"recipe_margin": CODE_SHARE * config.recipe_margin})


def choose(evidence: Evidence, config: ModelGateConfig, margin: float) -> Outcome:
    """Return the decision on the challenger, and which model is promoted.

    With margin m, and recipe margin M of the configuration:

    - the challenger is promoted if theta is above -m (pooled, one-sided 95 %) and not surely below
      it on this holdout alone, the same holds for delta with M, delta is not surely below zero, and
      no bound is broken or in doubt: PROMOTE; a later try on the same holdout is held to more than
      95 % (`confidence_of_try`);
    - else the fresh anchor is promoted if phi is above -m in the same sense, and it holds every
      bound itself: a worse recipe never costs freshness;
    - else nothing is promoted.

    The decision on the challenger is REJECT where theta is surely below -m, delta is surely below
    zero, or a bound is broken; INCONCLUSIVE otherwise.
    """
    theta, delta, phi = evidence.theta, evidence.delta, evidence.phi
    num_tries = evidence.num_tries
    is_held_back = evidence.is_broken or evidence.is_held_back
    is_good_recipe = delta is None or (
        is_shown(delta, config.recipe_margin, num_tries) and delta.pooled.high(ONE_SIDED_95) > 0
    )
    is_above = theta is not None and is_shown(theta, margin, num_tries)
    if is_above and is_good_recipe and not is_held_back:
        return Outcome(Decision.PROMOTE, Promoted.CHALLENGER)
    is_lost = theta is not None and is_denied(theta, margin)
    is_worse = is_lost or (delta is not None and is_surely_worse(delta))
    decision = Decision.REJECT if is_worse or evidence.is_broken else Decision.INCONCLUSIVE
    of_anchor = margin if evidence.anchor_margin is None else evidence.anchor_margin
    if phi is not None and evidence.is_anchor_sound and is_shown(phi, of_anchor):
        return Outcome(decision, Promoted.ANCHOR)
    return Outcome(decision, Promoted.NONE)


def confidence_of_try(num_tries: int) -> float:
    """Return the one-sided confidence that the try of this number on one holdout is held to.

    Whoever tries often enough finds a lucky model, so later tries share what they may err: the k-th
    one gets c / (k - 1)^2, which add up to half of what the first may (alpha spending: Lan and
    DeMets, Discrete Sequential Boundaries for Clinical Trials, Biometrika 70(3), 1983, with weights
    that have a finite sum). By Bonferroni's inequality all tries together are wrong at most 1.5
    times as often as one.
    """
    if num_tries == 1:
        return 1 - FALSE_PROMOTIONS
    spent = 6 / (math.pi * (num_tries - 1)) ** 2  # The sum over all tries is 1.
    return 1 - FALSE_PROMOTIONS * _LATER_TRIES * spent


def plausible_lift(
    error: float, seed_noise: float, past: Sequence[float], first: float = 0.0
) -> float:
    """Return up to which relative change against the champion nobody has to look for a leak.

    Earlier cycles say what is usual, by their median if it is a gain, and by the median deviation.
    The holdout's error and the luck of two trainings spread a change where cycles were all alike.

    Args:
        error: Standard error of the change.
        seed_noise: Standard deviation of a model's luck, relative.
        past: Changes that earlier cycles found.
        first: What is usual where they found none.
    """
    usual = max(median(past), 0.0) if past else first
    deviation = 1.4826 * median(abs(each - usual) for each in past) if past else 0.0
    return usual + _IMPLAUSIBLE * max(math.hypot(error, math.sqrt(2) * seed_noise), deviation)


def is_shown(change: Change, margin: float, num_tries: int = 1) -> bool:
    """Return whether a change is above minus the margin, which this holdout does not deny."""
    is_above = change.pooled.low(NormalDist().inv_cdf(confidence_of_try(num_tries))) > -margin
    return is_above and change.now.high(TWO_SIDED_95) > -margin


def is_denied(change: Change, margin: float) -> bool:
    """Return whether this holdout alone is sure that a change is below minus the margin."""
    return change.now.high(TWO_SIDED_95) < -margin


def is_spent(total: Estimate, lowest: float, highest: float) -> bool:
    """Return whether what recipes changed together lies beyond a guardrail, more likely than not.

    `gate_year_of_hides` says what a year of +0.5 % a cycle comes to so.
    """
    return not lowest <= total.value <= highest


def is_within(total: Estimate, lowest: float, highest: float) -> bool:
    """Return whether what recipes changed together is shown to lie within a guardrail.

    Until it is, later recipes are held to the accepted recipe of before, so that no error of theirs
    adds up: what a holdout cannot see is counted until it can.
    """
    return total.low(ONE_SIDED_95) >= lowest and total.high(ONE_SIDED_95) <= highest


def is_surely_worse(delta: Change) -> bool:
    """Return whether a recipe is surely worse than the fresh anchor, over all its cycles."""
    return delta.pooled.high(ONE_SIDED_95) < 0


def is_surely_better(delta: Change) -> bool:
    """Return whether a recipe is surely better than the fresh anchor, so that it takes its place.

    That demands more than a promotion does: what is accepted is what later recipes are held to.
    """
    return delta.pooled.low(TWO_SIDED_95) > 0
