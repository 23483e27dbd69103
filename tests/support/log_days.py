"""Rows of an event log made by hand or by a seed, for the tests of its days."""

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa

from pipelines.contracts.arrow import to_list_column
from pipelines.contracts.day_profile import DayProfile, Number
from pipelines.contracts.schemas import ACTIONS, IMPRESSIONS, PINS, USERS
from pipelines.contracts.time import DAY_MS, HOUR_MS
from support.planted import LogRows

FIRST_DAY = 19_000
WIDTH = 32


def impressions(rows: Sequence[tuple[str, int, int, int, int]], **columns: object) -> pa.Table:
    """Return impressions from (request, user, pin, time in ms, position), known a second later."""
    request, user, pin, time, position = zip(*rows, strict=True)
    known, num = [each + 1000 for each in time], len(rows)
    own = [request, user, pin, time, known, position, ["home"] * num, [False] * num, [None] * num]
    found = dict(zip(IMPRESSIONS.names, own, strict=True)) | columns
    more = [pa.field(name, pa.string()) for name in columns if name not in IMPRESSIONS.names]
    return pa.table(found, schema=pa.schema([*IMPRESSIONS, *more]))


def actions(rows: Sequence[tuple[int, int, str, int, str | None]]) -> pa.Table:
    """Return actions from (user, pin, type, time in ms, request), known a second later."""
    user, pin, kind, time, request = zip(*rows, strict=True)
    known = [each + 1000 for each in time]
    return pa.table([user, pin, kind, time, known, request], schema=ACTIONS)


def users(rows: Sequence[tuple[int, int, str]], vectors: np.ndarray) -> pa.Table:
    """Return users from (user, as_of in days, state) and their embeddings."""
    user, day, state = zip(*rows, strict=True)
    embeddings, nowhere = to_list_column(vectors.astype(np.float32)), [None] * len(rows)
    as_of = [each * DAY_MS for each in day]
    return pa.table([user, as_of, embeddings, state, nowhere], schema=USERS)


def profiles(
    values: Callable[[int], dict[str, float]], num_days: int, first_day: int = FIRST_DAY
) -> list[DayProfile]:
    """Return days whose numbers are a function of the day's place, each of 10,000 rows."""
    return [
        DayProfile(
            day=first_day + place,
            numbers={n: Number(value=v, num=10_000) for n, v in values(place).items()},
            counts={},
        )
        for place in range(num_days)
    ]


def random_log(num_days: int = 6, seed: int = 1) -> LogRows:
    """Return a log of 40 users with two requests of five pins a day; one pin in five is acted upon.

    The middle days may be touched; the first and the last may not.
    """
    rng = np.random.default_rng(seed)
    shown, acted = [], []
    for day in range(FIRST_DAY, FIRST_DAY + num_days):
        for user in range(40):
            for number in range(2):
                time = day * DAY_MS + int(rng.integers(1, 20)) * HOUR_MS
                pins = rng.choice(100, 5, replace=False) + 1000
                request = f"r{day}-{user}-{number}"
                shown += [(request, user, int(pin), time, n) for n, pin in enumerate(pins)]
                acted.append((user, int(pins[0]), "repin", time + 60_000, request))
            acted.append((user, int(rng.integers(1000, 1100)), "click", time + 120_000, None))
    rows = [(user, day, ("core", "new")[user % 2]) for user in range(40)
            for day in range(FIRST_DAY - 1, FIRST_DAY + num_days)]  # fmt: skip
    vectors = rng.normal(size=(len(rows), WIDTH))
    embeddings = to_list_column(rng.normal(size=(100, WIDTH)).astype(np.float32))
    pins_table = pa.table([np.arange(1000, 1100), ["v1"] * 100, embeddings], schema=PINS)
    category = rng.choice(["a", "b", "c"], len(shown), p=[0.7, 0.2, 0.1]).tolist()
    return LogRows(
        impressions(shown, shelf=category),
        actions(acted),
        pins_table,
        users(rows, vectors),
        first_day=FIRST_DAY + 1,
        holdout_day=FIRST_DAY + 3,
        end_day=FIRST_DAY + num_days - 1,
    )
