"""SplitMix64 against its published numbers and against Python's own integers."""

import numpy as np

from pipelines.contracts.hashing import GOLDEN_GAMMA, mix, seed_of, uniform

MASK = (1 << 64) - 1


def mixed(value: int, *seeds: int) -> int:
    """The same in arbitrary precision."""
    for seed in (*seeds, 0):
        bits = (value + (seed + 1) * GOLDEN_GAMMA) & MASK
        bits = (bits ^ bits >> 30) * 0xBF58476D1CE4E5B9 & MASK
        bits = (bits ^ bits >> 27) * 0x94D049BB133111EB & MASK
        value = bits ^ bits >> 31
    return value


def test_hashes_are_those_of_splitmix64_and_of_pythons_own_integers() -> None:
    # The generator seeded with 0 gives these; its n-th number is the hash of (n - 1) steps.
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert mix(np.arange(3, dtype=np.uint64) * np.uint64(GOLDEN_GAMMA)).tolist() == published
    values = np.array([0, 1, 31198655051, -1, 2**63 - 1])
    for seeds in ((), (5,), (5, 2**62), (0, 0)):
        expected = [mixed(int(value) & MASK, *seeds) for value in values]
        assert mix(values, *seeds).tolist() == expected
    assert seed_of(3, 4) == mixed(0, 3, 4) >> 1
    top_bits = [(mixed(int(value) & MASK, 7) >> 11) / 2**53 for value in values]
    assert uniform(values, 7).tolist() == top_bits
