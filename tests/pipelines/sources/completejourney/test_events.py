import numpy as np

from pipelines.sources.completejourney import events


def test_draws_are_hashes_of_ids_alone() -> None:
    """Worked out once with Python's own integers: no generator, no platform, no order of rows."""
    pairs = np.array([31198655051, 7]), np.array([0, 63])
    assert events.hash_of(5, *pairs).tolist() == [_hash_of(5, 31198655051, 0), _hash_of(5, 7, 63)]


def _hash_of(seed: int, first: int, second: int) -> int:
    """The same in arbitrary precision."""
    mask, step = (1 << 64) - 1, 0x9E3779B97F4A7C15

    def mix(bits: int) -> int:
        bits = (bits ^ bits >> 30) * 0xBF58476D1CE4E5B9 & mask
        bits = (bits ^ bits >> 27) * 0x94D049BB133111EB & mask
        return bits ^ bits >> 31

    return mix((mix((first + seed * step) & mask) + second * step) & mask)
