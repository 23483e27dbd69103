"""Seeded hashes of whole arrays: the same choice for the same row, on every machine and rank.

For sampling, splitting and breaking ties. Not for security.
"""

import numpy as np


def mix(values: np.ndarray, *seeds: int) -> np.ndarray:
    """Return a uint64 hash per value (splitmix64's finaliser), different for different seeds."""
    mixed = np.asarray(values).astype(np.uint64)
    with np.errstate(over="ignore"):
        for seed in (*seeds, 0):
            mixed = mixed + np.uint64((seed * 0x9E3779B97F4A7C15 + 0x9E3779B97F4A7C15) % 2**64)
            mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            mixed = mixed ^ (mixed >> np.uint64(31))
    return mixed


def uniform(values: np.ndarray, *seeds: int) -> np.ndarray:
    """Return a float64 in [0, 1) per value."""
    return (mix(values, *seeds) >> np.uint64(11)).astype(np.float64) / 2.0**53


def seed_of(*parts: int) -> int:
    """Return one generator seed (63 bits) from several whole numbers."""
    return int(mix(np.zeros(1, dtype=np.uint64), *parts)[0] >> np.uint64(1))
