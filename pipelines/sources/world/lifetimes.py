"""When pins of a world are born, how they fade, and which of them can be shown at a time.

Without `WorldParameters.fading` all pins are there at all times and none fades. With it, births are
spread evenly over the days of the log and over the `shown_days` before them, in the order of the
pin_ids, so that about equally many pins are shown at any time. Not for who is shown which of them:
`pipelines.sources.world.requests`. Tested in tests/pipelines/sources/world/test_lifetimes.py.

Letters: P pins, R requests, C candidates.
"""

import numpy as np

from pipelines.contracts.time import DAY_MS
from pipelines.sources.world.parameters import WorldParameters
from pipelines.sources.world.people import Catalogue, Floats, Ints


def first_alive(world: WorldParameters, catalogue: Catalogue, time_R: Ints) -> Ints:
    """Return the first pin_id that can be shown at each time; later ones can, until `end_alive`."""
    if world.fading is None:
        return np.zeros_like(time_R)
    oldest_R = time_R - int(world.fading.shown_days * DAY_MS)
    return np.searchsorted(catalogue.born_ms_P, oldest_R, side="left")


def end_alive(world: WorldParameters, catalogue: Catalogue, time_R: Ints) -> Ints:
    """Return the first pin_id that is not born at each time; there is none without births."""
    if world.fading is None:
        return np.full_like(time_R, world.num_pins)
    return np.searchsorted(catalogue.born_ms_P, time_R, side="right")


def appeal_at(world: WorldParameters, catalogue: Catalogue, pin_RC: Ints, time_R: Ints) -> Floats:
    """Return (R, C) what pins add to the log-odds of repins and clicks at their requests' times."""
    appeal_RC = catalogue.appeal_P[pin_RC]
    if world.fading is None:
        return appeal_RC
    age_days_RC = (time_R[:, None] - catalogue.born_ms_P[pin_RC]) / DAY_MS
    left_RC = np.exp2(-age_days_RC / world.fading.lifetime_days)
    return np.asarray((world.fading.newborn_appeal + appeal_RC) * left_RC)
