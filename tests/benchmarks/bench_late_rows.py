"""A minute's rows for a day that was written: seconds until a reader has them, on a large log.

The log is of 60 days and 9 M impressions, written once by `EventLogWriter` below .homefeed/bench;
120 batches of a minute follow each other, so that small files are put together meanwhile.
"""

import shutil
import time

import numpy as np
from record import Row, row
from sample import HOME

from pipelines.contracts.time import DAY_MS
from pipelines.event_log.log_files import open_event_log
from pipelines.sources.event_log_writer import EventLogWriter
from pipelines.storage import to_uri

LOG, SEED = HOME / "bench" / "late_rows", 5
NUM_DAYS, ROWS_OF_A_DAY, ROWS_OF_A_MINUTE, NUM_MINUTES = 60, 150_000, 2_000, 120
FIRST_DAY, NUM_USERS, NUM_PINS, BOUND_S = 19_000, 50_000, 20_000, 2.0


def measure() -> list[Row]:
    """Return the median and the longest time of a batch."""
    shutil.rmtree(LOG, ignore_errors=True)
    rng = np.random.default_rng(SEED)
    try:
        _write_days(rng)
        seconds = [_add_minute(rng, number) for number in range(NUM_MINUTES)]
        num_files = len(open_event_log(to_uri(LOG)).files)
    finally:
        shutil.rmtree(LOG, ignore_errors=True)
    typical = float(np.median(seconds))
    return [
        row(
            "late_rows",
            typical,
            "s",
            ratio=typical / BOUND_S,
            peer=f"the bound of {BOUND_S:g} s",
            spread=f"the longest of {NUM_MINUTES} took {max(seconds):.2f} s",
            rows=NUM_DAYS * ROWS_OF_A_DAY,
            seed=str(SEED),
            note=f"{ROWS_OF_A_MINUTE:,} impressions and a tenth as many actions for one of "
            f"{NUM_DAYS} days, known late; {num_files} files in the end",
        )
    ]


def _write_days(rng: np.random.Generator) -> None:
    embeddings = rng.normal(size=(NUM_PINS, 32)).astype(np.float32)
    with EventLogWriter(LOG, "bench-1") as writer:
        writer.pins({"pin_id": np.arange(NUM_PINS), "embedding": embeddings})
        for day in range(NUM_DAYS):
            shown, acted = _rows(rng, day, ROWS_OF_A_DAY, f"{day}")
            writer.impressions(shown)
            writer.actions(acted)


def _add_minute(rng: np.random.Generator, number: int) -> float:
    shown, acted = _rows(rng, NUM_DAYS - 2, ROWS_OF_A_MINUTE, f"late-{number}")
    known = (FIRST_DAY + NUM_DAYS) * DAY_MS + number * 60_000
    started = time.perf_counter()
    with EventLogWriter(LOG, "bench-1", late_rows=True) as writer:
        writer.impressions(shown | {"known_at": np.full(len(shown["user_id"]), known)})
        writer.actions(acted | {"known_at": np.full(len(acted["user_id"]), known)})
    open_event_log(to_uri(LOG))
    return time.perf_counter() - started


def _rows(rng: np.random.Generator, day: int, num: int, name: str) -> tuple[dict, dict]:
    """Return impressions of a day, 20 a request, and an action for each tenth."""
    request, place = np.divmod(np.arange(num), 20)
    at = (FIRST_DAY + day) * DAY_MS + rng.integers(0, DAY_MS // 2, num // 20)
    shown = {
        "request_id": np.char.add(f"{name}-", request.astype(str)),
        "user_id": rng.integers(0, NUM_USERS, num // 20)[request],
        "pin_id": rng.integers(0, NUM_PINS, num),
        "impressed_at": at[request],
        "position": place,
    }
    acted = {each: shown[each][::10] for each in ("user_id", "pin_id", "request_id")}
    acted |= {"acted_at": shown["impressed_at"][::10] + 60_000}
    return shown, acted | {"action_type": np.repeat("click", len(acted["user_id"]))}
