"""What a holdout is large enough for: how often it promotes an equal model, what a margin needs.

An equal model is promoted where its change, less 1.645 standard errors s, lies above minus the
margin m: with the power Phi(m / s - 1.645). Four times in five takes s = m / 2.49. The variance s^2
has a part of users, which falls as their number grows, and one of days, which does not; in a longer
holdout both fall, as long as its users and days are new ones. Not for deciding.
"""

import math
from statistics import NormalDist
from typing import NamedTuple

from pipelines.contracts.config import ModelGateConfig
from pipelines.contracts.judgement import Comparison
from pipelines.contracts.reasons import ONE_SIDED_95, BaselineKind
from validation.model_gate.intervals import POWER

_NORMAL = NormalDist()
ACTIONS_VARIANCE = 0.1
"""Variance of the change between two models of one recipe, times the holdout's target actions:
0.092 on the sample, a fortnight apart."""


SAMPLED_POWER, LEAST_POWER = 0.99, 0.9
"""What a sample of users is drawn for, to judge as all of them would, and what it must have: with
2.9 standard errors it sees a change of a bound's size."""


class Needed(NamedTuple):
    """The power of a holdout, and one like it that has enough."""

    power: float  # Share of equal models that are promoted.
    users: int | None  # As active as those of the holdout, on its days; None: days alone are noise.
    days: int  # With as many requests as those of the holdout.


def needed_for(
    user_variance: float,
    day_variance: float,
    num_users: int,
    num_days: int,
    margin: float,
    power: float = POWER,
) -> Needed | None:
    """Return what a margin needs; None where there is nothing to measure against.

    Args:
        user_variance: What users add to the variance of the target's relative change.
        day_variance: What days add to it.
        num_users: Users of the holdout that it was measured on.
        num_days: Days of that holdout.
        margin: The relative loss that is allowed, above 0.
        power: Share of equal models that shall be promoted.
    """
    variance = user_variance + day_variance
    if margin <= 0 or variance == 0:
        return None
    wanted = (margin / (ONE_SIDED_95 + _NORMAL.inv_cdf(power))) ** 2
    left = wanted - day_variance
    users = math.ceil(num_users * user_variance / left) if left > 0 else None
    found = _NORMAL.cdf(margin / math.sqrt(variance) - ONE_SIDED_95)
    return Needed(found, users, math.ceil(num_days * variance / wanted))


def needed_by_log(num_users: int, num_days: int, num_actions: int, margin: float) -> Needed | None:
    """Return about what a margin needs, before there is a model: by the actions of a holdout.

    Two trainings of one recipe differ in few of the actions that they rank high, so that their
    change varies as a share of single actions does. What days add is not known then.
    """
    variance = ACTIONS_VARIANCE / num_actions if num_actions else 0.0
    return needed_for(variance, 0.0, num_users, num_days, margin)


def needed_of(comparison: Comparison, error: float, margin: float) -> Needed | None:
    """Return what a margin needs, by the standard error of a comparison's target change."""
    target = comparison.target
    days = (target.day_share or 0.0) * error**2 if target else 0.0
    return needed_for(error**2 - days, days, comparison.num_users, comparison.num_days, margin)


def users_needed(comparison: Comparison, config: ModelGateConfig, power: float) -> int:
    """Return how many users show every bound of a comparison with a power, as its errors say.

    A sample's few days say little of what they add, so that users are asked to make good for all of
    an error. What was not computed asks for all users, and so does a change that has no error.
    """
    is_anchor, target = comparison.baseline_kind is BaselineKind.ANCHOR, comparison.target_metric
    bounds = {(target, "all"): config.recipe_margin if is_anchor else config.margin}
    bounds |= {(target, segment): config.segment_margin for segment in config.required_segments}
    for rail in config.guardrails:
        allowed = rail.max_increase, rail.max_decrease
        bounds[rail.metric, "all"] = min(bound for bound in allowed if bound is not None)
    num_users, least = comparison.num_users, config.min_head_positives
    found = [num_users * least // max(head.num_positives, 1) for head in comparison.heads]
    for (metric, segment), bound in bounds.items():
        row = comparison.find(metric, segment)
        if row is None or row.relative_change is None:
            return comparison.num_users_in_all or num_users
        variance = row.relative_change.error**2
        needed = needed_for(variance, 0.0, num_users, comparison.num_days, bound, power)
        found.append((needed and needed.users) or 0)
    return max(found)
