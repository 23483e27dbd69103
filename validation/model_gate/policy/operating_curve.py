"""The operating curve: what the recipe's thresholds can and cannot see at this holdout's size.

For recipes that are truly better or worse by a known share, a year of cycles is lived through many
times (`validation.model_gate.policy.years`): how often such a challenger is promoted or rejected,
and how good what serves is on the mean of a year. Tested in
tests/validation/model_gate/test_operating_curve.py.
"""

from collections.abc import Callable

import numpy as np

from pipelines.contracts.config import ModelGateConfig
from pipelines.contracts.judgement import Decision, OperatingPoint
from validation.model_gate.policy.years import Setting, live_years

TRUE_CHANGES = tuple(round(step * 0.0025, 4) for step in range(-8, 9))
"""From -2 % to +2 % in steps of a quarter of a percent."""
ASSUMED_DECAY = 0.003
"""What a champion loses per cycle of its age where nothing was measured; the sample's order."""
NUM_YEARS = 120


def operating_curve(error: float, config: ModelGateConfig) -> tuple[OperatingPoint, ...]:
    """Return one point for each true change.

    Args:
        error: Standard error of the target metric's change on one holdout of this size.
        config: The recipe's thresholds.
    """
    setting = Setting(error=error, decay=ASSUMED_DECAY, seed_noise=config.seed_noise)
    points = []
    for change in TRUE_CHANGES:
        years = live_years(_always(change), setting, config, NUM_YEARS, config.bootstrap_seed)
        points.append(
            OperatingPoint(
                true_change=change,
                promoted=float(np.mean([year.share(Decision.PROMOTE) for year in years])),
                rejected=float(np.mean([year.share(Decision.REJECT) for year in years])),
                year_quality=float(np.mean([year.mean_quality for year in years])),
            )
        )
    return tuple(points)


def _always(value: float) -> Callable[[int], float]:
    return lambda cycle: value
