"""Directions of pins as unit vectors whose products and sums are exact in floating point.

Not for comparing them: `similarity`, which says why. Tested in
tests/pipelines/snapshot/features/test_similarity.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipelines.event_log.event_index import Ints

STEPS = 2.0**11
"""A component is a multiple of 1 / STEPS. A cosine moves by less than 0.001 by that, as a rule."""


@dataclass(frozen=True)
class UnitVectors:
    """Unit vectors of some pins; the vector of an embedding of zeros is zero."""

    matrix: npt.NDArray[np.float32]  # [used pins, E]
    place: Ints  # [pins] row of the matrix; undefined for a pin that is not used

    @staticmethod
    def of_pins(embedding: npt.NDArray[np.float32], used: Sequence[Ints]) -> "UnitVectors":
        """Return the directions of the pins that are used.

        Args:
            embedding: [pins, E], finite.
            used: arrays of pin rows.
        """
        is_used = np.zeros(len(embedding), dtype=bool)
        for rows in used:
            is_used[rows] = True
        vectors = embedding[is_used].astype(np.float64)
        norm = np.sqrt(np.square(vectors).sum(axis=1, keepdims=True))
        units = np.divide(vectors, norm, out=np.zeros_like(vectors), where=norm > 0)
        steps = np.round(units * STEPS) / STEPS
        return UnitVectors(steps.astype(np.float32), np.cumsum(is_used) - 1)

    def of(self, pin_rows: Ints) -> npt.NDArray[np.float32]:
        """Return the vectors of some pins, the last axis being the embedding's."""
        return self.matrix[self.place[pin_rows]]
