"""How many planted skews between served and judged scores are found, and how many sound logs told.

Each of five kinds is planted in one request of a hundred, ten times with other requests.
"""

import tempfile
from pathlib import Path

from record import Row, row

from pipelines.log_days.skew import MOST_REQUESTS, measure_skew
from support.served_world import PLANTED, ServedWorld

SEEDS = range(10)


def measure() -> list[Row]:
    """Return the share of the plantings that are found with their cause."""
    with tempfile.TemporaryDirectory(prefix="homefeed-bench-") as folder:
        served = ServedWorld(Path(folder))
        served.write(served.sound)
        sound = measure_skew(served.run, served.side)
        assert sound is not None and not sound.is_fault, "a sound log is told"
        found = {cause: sum(_is_found(served, cause, seed) for seed in SEEDS) for cause in PLANTED}
    num = len(SEEDS) * len(PLANTED)
    return [
        row(
            "skew",
            100 * sum(found.values()) / num,
            "% of planted skews found",
            ratio=sum(found.values()) / num,
            peer="all of them",
            spread=", ".join(f"{cause} {hits} of {len(SEEDS)}" for cause, hits in found.items()),
            rows=MOST_REQUESTS,
            seed=f"{SEEDS[0]} to {SEEDS[-1]}",
            note=f"of 1 % of the requests; {sound.num_differ} differ on the sound log",
        )
    ]


def _is_found(served: ServedWorld, cause: str, seed: int) -> bool:
    served.plant(cause, 0.01, seed)
    found = measure_skew(served.run, served.side)
    return found is not None and found.is_fault and set(found.causes) == {cause}
