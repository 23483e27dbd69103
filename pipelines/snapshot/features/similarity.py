"""Features of how alike a candidate and the user's newest actions are: cosines of embeddings.

The same bytes come out on every machine, although matrix products are rounded in whatever order a
processor likes: here nothing is rounded. The components of a unit vector are multiples of 2**-11
(`vectors`), and the weights of actions multiples of 2**-20. So every product and every sum is a
number that float32 (for one cosine) or float64 (for sums of them) holds exactly. An embedding of
zeros has the cosine 0 with everything. A rounded unit vector may be longer than 1, so that a pin
may seem to be more than alike to itself: what comes out is cut to -1 and 1.

Letters: R requests of a block, A actions, C candidates of a request, E embedding.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.contracts.config import NumericFeature
from pipelines.contracts.time import DAY_MS
from pipelines.event_log.event_index import Ints
from pipelines.snapshot.features.inputs import FeatureInputs, Floats

BLOCK_EXAMPLES = 2048
"""The most candidates at a time, save of a single request."""
BLOCK_NUMBERS = 1 << 22
"""The most numbers in the vectors of a block's actions, save of a single request: 16 MB of float32,
and twice that while they are weighted."""
_LEAST_WIDTH = 32
"""What an action counts for at least among BLOCK_NUMBERS, because its times and rows take room."""
_STEPS_OF_WEIGHT = 2.0**20


@dataclass(frozen=True)
class _Block:
    """Some requests with one number of candidates, each with at least one action before it."""

    examples_RC: Ints  # rows of the examples
    candidates_RCE: npt.NDArray[np.float32]
    rows_RA: Ints  # rows of the timeline, oldest first
    is_action_RA: npt.NDArray[np.bool_]
    actions_RAE: npt.NDArray[np.float32]  # whatever, where there is no action


def best(seen: FeatureInputs, feature: NumericFeature) -> Floats:
    """Return the largest cosine of the candidate with the user's newest actions."""

    def largest(block: _Block) -> Floats:
        cosines_RCA = np.matmul(block.candidates_RCE, block.actions_RAE.swapaxes(1, 2))
        # No cosine is below -1, so that the places beyond the history never win.
        cosines_RCA += np.where(block.is_action_RA, 0.0, -4.0).astype(np.float32)[:, None]
        return cosines_RCA.max(axis=2)

    return _by_block(seen, feature, largest)


def mean(seen: FeatureInputs, feature: NumericFeature) -> Floats:
    """Return the mean cosine of the candidate with the user's newest actions."""
    return _by_block(seen, feature, lambda block: _weighted(block, block.is_action_RA))


def decayed(seen: FeatureInputs, feature: NumericFeature) -> Floats:
    """Return the mean cosine, weighted by 2**(-age / half-life).

    Ages count from the newest of the actions, which gives the same mean as from the request.
    """
    half_life_ms = float(feature.option("half_life_days")) * DAY_MS
    acted_at = seen.pointers.timeline.acted_at

    def decay(block: _Block) -> Floats:
        acted_at_RA = np.where(block.is_action_RA, acted_at[block.rows_RA], 0)
        age_RA = acted_at_RA.max(axis=1, keepdims=True) - acted_at_RA
        weight_RA = np.round(np.exp2(-age_RA / half_life_ms) * _STEPS_OF_WEIGHT) / _STEPS_OF_WEIGHT
        return _weighted(block, np.where(block.is_action_RA, weight_RA, 0.0))

    return _by_block(seen, feature, decay)


def _by_block(
    seen: FeatureInputs, feature: NumericFeature, compute: Callable[[_Block], Floats]
) -> npt.NDArray[np.float32]:
    """Return what is computed of each block, cut to -1 and 1; NaN without an action before."""
    found = np.full(len(seen.request), np.nan, dtype=np.float32)
    for block in _blocks(seen, feature):
        found[block.examples_RC] = np.clip(compute(block), -1.0, 1.0)
    return found


def _weighted(block: _Block, weight_RA: npt.NDArray[Any]) -> Floats:
    """Return the weighted mean of the cosines, [R, C]; a candidate is compared with one vector."""
    weight_R1A = weight_RA.astype(np.float64)[:, None]
    sum_R1E = np.matmul(weight_R1A, block.actions_RAE.astype(np.float64))
    sum_RC = np.matmul(block.candidates_RCE.astype(np.float64), sum_R1E.swapaxes(1, 2))[:, :, 0]
    return np.asarray(sum_RC / weight_R1A.sum(axis=2))


def _blocks(seen: FeatureInputs, feature: NumericFeature) -> Iterator[_Block]:
    """Yield the requests that have actions before them, a few at a time."""
    requests, pointers = seen.ordered.requests, seen.pointers
    num_actions = int(feature.option("num_actions"))
    steps_A = np.arange(-num_actions, 0)
    most = BLOCK_NUMBERS // (num_actions * max(_LEAST_WIDTH, seen.unit_vectors.matrix.shape[1]))
    has_history = np.flatnonzero(pointers.timeline_end > pointers.timeline_start)
    # Requests with as many candidates as each other fill a matrix without padding.
    by_size = has_history[np.argsort(requests.num_examples[has_history], kind="stable")]
    sizes, starts = np.unique(requests.num_examples[by_size], return_index=True)
    for size, start, end in zip(sizes, starts, [*starts[1:], len(by_size)], strict=True):
        step = max(1, min(most, BLOCK_EXAMPLES // int(size)))
        for first in range(start, end, step):
            rows = by_size[first : min(first + step, end)]
            rows_RA = pointers.timeline_end[rows][:, None] + steps_A
            is_action_RA = rows_RA >= pointers.timeline_start[rows][:, None]
            rows_RA = np.where(is_action_RA, rows_RA, 0)
            examples_RC = requests.first_example[rows][:, None] + np.arange(size)
            asked_at_R1 = requests.impressed_at[rows][:, None]
            yield _Block(
                examples_RC=examples_RC,
                candidates_RCE=_vectors(seen, pointers.example_pin_row[examples_RC], asked_at_R1),
                rows_RA=rows_RA,
                is_action_RA=is_action_RA,
                actions_RAE=_vectors(seen, pointers.timeline_pin_row[rows_RA], asked_at_R1),
            )


def _vectors(seen: FeatureInputs, pin_rows: Ints, asked_at: Ints) -> npt.NDArray[np.float32]:
    """Return unit vectors of pins; zeros where the embedding was not known before the request."""
    vectors = seen.unit_vectors.of(pin_rows)
    is_late = seen.is_late(pin_rows, asked_at)
    if is_late is not None:
        vectors[is_late] = 0.0
    return vectors
