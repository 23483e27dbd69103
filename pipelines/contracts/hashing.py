"""Seeded hashes of whole arrays: the same choice for the same row, on every machine and rank.

The hash is SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), which any engine can compute in 64-bit
integer arithmetic. For sampling, splitting and breaking ties. Not for security.
"""

import numpy as np
import numpy.typing as npt

Uint64s = npt.NDArray[np.uint64]

GOLDEN_GAMMA = 0x9E3779B97F4A7C15
"""SplitMix64's step: 2^64 divided by the golden ratio."""


def finalise(bits: Uint64s) -> Uint64s:
    """Return each uint64 with its bits mixed well: SplitMix64's finaliser."""
    with np.errstate(over="ignore"):
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def mix(values: np.ndarray, *seeds: int) -> Uint64s:
    """Return a uint64 hash per value, different for different seeds."""
    mixed = np.asarray(values).astype(np.uint64)
    with np.errstate(over="ignore"):
        for seed in (*seeds, 0):
            mixed = finalise(mixed + np.uint64((seed + 1) * GOLDEN_GAMMA % 2**64))
    return mixed


def hash_rows(matrix: np.ndarray) -> Uint64s:
    """Return a uint64 for each row of a float32 [rows, width] matrix, equal for equal rows."""
    bits = np.ascontiguousarray(matrix, dtype=np.float32).view(np.uint32)
    hashes = np.zeros(len(bits), dtype=np.uint64)
    for column in range(bits.shape[1]):
        hashes = mix(hashes ^ bits[:, column].astype(np.uint64))
    return hashes


def uniform(values: np.ndarray, *seeds: int) -> np.ndarray:
    """Return a float64 in [0, 1) per value."""
    return (mix(values, *seeds) >> np.uint64(11)).astype(np.float64) / 2.0**53


def seed_of(*parts: int) -> int:
    """Return one generator seed (63 bits) from several whole numbers."""
    return int(mix(np.zeros(1, dtype=np.uint64), *parts)[0] >> np.uint64(1))
