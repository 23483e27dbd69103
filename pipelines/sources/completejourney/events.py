"""Impressions and actions of the Complete Journey adapter: who was shown what, who bought what.

All draws are hashes of ids and a fixed seed. There is no generator state, so every machine draws
the same. Not for embeddings: `pipelines.sources.completejourney.embeddings`.
"""

from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.hashing import GOLDEN_GAMMA, finalise
from pipelines.contracts.schemas import ACTIONS, IMPRESSIONS
from pipelines.event_log.event_index import place_in_run

Ints = npt.NDArray[np.int64]

CANDIDATES_PER_REQUEST = 30
SEED = 20170101
_NUM_DRAWS = 64
_SMALL_POOL = 256  # a pool of at most this many promotions is ranked, not drawn from
_PRODUCT_BITS = 32

# Of two placements of a product in a store and week, the greater one is kept; every placement is
# one letter. A listed product counts as promoted, also where both placements are '0', which means
# none: the row itself says that the product was in the week's promotion.
_PROMOTIONS = f"""
    SELECT (store_id * 100 + week) << {_PRODUCT_BITS} | product_id AS keys,
        max(ascii(display_location) << 8 | ascii(mailer_location)) AS placement,
        count(*) AS num_rows
    FROM read_parquet(?) GROUP BY keys ORDER BY keys
"""
# Every transaction row counts as a purchase, the 0.6 % with a quantity of zero included.
_PURCHASES = """
    SELECT household_id AS user_id, basket_id, product_id AS pin_id, quantity AS num_units,
        epoch_ms(transaction_timestamp) AS time_ms, store_id * 100 + week AS store_week,
        coupon_disc > 0 OR coupon_match_disc > 0 AS has_coupon
    FROM read_parquet(?) ORDER BY time_ms, basket_id, pin_id
"""


@dataclass(frozen=True)
class Promotions:
    """What was promoted where: one entry per (store-week, product), sorted by both.

    A store-week is a store in a week, as store * 100 + week.
    """

    keys: Ints  # store-week << 32 | product
    placement: Ints  # letter of the display << 8 | letter of the mailer
    num_rows: Ints  # rows of the source for this entry; two where it lists two placements


@dataclass(frozen=True)
class Purchases:
    """Transactions by (time, basket_id, product_id); a basket has one time, store and household."""

    user_id: Ints
    basket_id: Ints
    pin_id: Ints
    time_ms: Ints
    num_units: Ints
    has_coupon: npt.NDArray[np.bool_]
    store_week: Ints
    promotion: Ints  # entry in Promotions; -1: bought off promotion

    @property
    def is_promoted(self) -> npt.NDArray[np.bool_]:
        """Bought on promotion."""
        return self.promotion >= 0


def read_promotions(source: Path) -> Promotions:
    """Read the promotions from the folder of the package's Parquet files."""
    with duckdb.connect() as connection:
        found = connection.execute(_PROMOTIONS, [str(source / "promotions.parquet")])
        return Promotions(**found.fetchnumpy())


def read_purchases(source: Path, promotions: Promotions) -> Purchases:
    """Read the transactions and find each one's promotion."""
    with duckdb.connect() as connection:
        found = connection.execute(_PURCHASES, [str(source / "transactions.parquet")])
        columns = found.fetchnumpy()
    wanted = columns["store_week"] << _PRODUCT_BITS | columns["pin_id"]
    place = np.minimum(np.searchsorted(promotions.keys, wanted), len(promotions.keys) - 1)
    return Purchases(**columns, promotion=np.where(promotions.keys[place] == wanted, place, -1))


def make_impressions(purchases: Purchases, promotions: Promotions) -> pa.Table:
    """Return IMPRESSIONS + display_location, mailer_location, by (time, basket, position).

    A basket with a promoted purchase is a request. Its candidates are all that it bought on
    promotion, and others drawn evenly from the same store-week's promotions up to 30 in all.
    Positions are a seeded shuffle: they say nothing of what was bought.
    """
    bought = np.flatnonzero(purchases.is_promoted)
    baskets, first, request = np.unique(
        purchases.basket_id[bought], return_index=True, return_inverse=True
    )
    first = bought[first]
    own = np.array([request, np.full(len(request), -1), purchases.promotion[bought]])
    drawn = np.hstack([own, _draw(baskets, promotions, purchases.store_week[first])])
    # Of each request, distinct promotions of lowest priority: all below 0, then up to 30.
    request, priority, promotion = drawn[:, np.lexsort((drawn[1], drawn[2], drawn[0]))]
    is_new = np.append(True, (np.diff(request) != 0) | (np.diff(promotion) != 0))
    distinct = np.array([request, priority, promotion])[:, is_new]
    ranked = distinct[:, np.lexsort((distinct[2], distinct[1], distinct[0]))]
    is_shown = (place_in_run(ranked[0]) < CANDIDATES_PER_REQUEST) | (ranked[1] < 0)
    request, _, promotion = ranked[:, is_shown]

    product = promotions.keys[promotion] & ((1 << _PRODUCT_BITS) - 1)
    shuffle = hash_of(SEED + 1, baskets[request], product)
    time_ms = purchases.time_ms[first][request]
    order = np.lexsort((shuffle, baskets[request], time_ms))
    request, promotion, time_ms = request[order], promotion[order], time_ms[order]
    letters = pa.array([chr(code) for code in range(128)])
    columns = [
        pa.array(baskets[request]).cast(pa.string()),
        purchases.user_id[first][request],
        product[order],
        time_ms,
        time_ms,
        place_in_run(request),
        pa.repeat("store", len(order)),
        np.zeros(len(order), dtype=bool),
        pa.nulls(len(order), pa.float32()),
        letters.take(pa.array(promotions.placement[promotion] >> 8)),
        letters.take(pa.array(promotions.placement[promotion] & 0xFF)),
    ]
    placements = [pa.field(name, pa.string()) for name in ("display_location", "mailer_location")]
    return pa.table(columns, schema=pa.schema([*IMPRESSIONS, *placements]))


def _draw(baskets: Ints, promotions: Promotions, store_week: Ints) -> Ints:
    """Return draws from what the requests may show, as rows (request, priority, promotion).

    A promotion may come up again. A request's pool is what was promoted in its store and week: a
    range of `promotions`. Large pools are drawn from with replacement, and the priority is the
    number of the draw: the first distinct ones are then an even draw without replacement. Small
    pools are taken whole, and the priority is a hash.
    """
    start = np.searchsorted(promotions.keys, store_week << _PRODUCT_BITS)
    size = np.searchsorted(promotions.keys, (store_week + 1) << _PRODUCT_BITS) - start
    large = np.flatnonzero(size > _SMALL_POOL)
    request = np.repeat(large, _NUM_DRAWS)
    number = np.tile(np.arange(_NUM_DRAWS), len(large))
    bits = hash_of(SEED, baskets[request], number)
    offset = (bits % size[request].astype(np.uint64)).astype(np.int64)
    small = np.flatnonzero(size <= _SMALL_POOL)
    small_request = np.repeat(small, size[small])
    small_offset = place_in_run(small_request)
    rank = hash_of(SEED, baskets[small_request], small_offset) >> np.uint64(40)
    of_large = (request, number, start[request] + offset)
    of_small = (small_request, rank.astype(np.int64), start[small_request] + small_offset)
    return np.hstack([of_large, of_small])


def make_actions(purchases: Purchases) -> pa.Table:
    """Return ACTIONS by (time, basket, product, action type).

    Actions on promoted products name their request; what was bought off promotion comes from no
    logged request.
    """
    promoted = purchases.is_promoted
    chosen = (
        ("repin", promoted),
        ("click", ~promoted),
        ("long_click", promoted & (purchases.num_units >= 2)),
        ("save", promoted & purchases.has_coupon),
    )
    rows = np.concatenate([np.flatnonzero(mask) for _, mask in chosen])
    kind = np.repeat(np.arange(len(chosen)), [int(mask.sum()) for _, mask in chosen])
    order = np.lexsort((kind, rows))
    rows, kind = rows[order], kind[order]
    request_id = pc.if_else(
        pa.array(promoted[rows]), pa.array(purchases.basket_id[rows]).cast(pa.string()), None
    )
    columns = [
        purchases.user_id[rows],
        purchases.pin_id[rows],
        pa.array([name for name, _ in chosen]).take(kind),
        purchases.time_ms[rows],
        purchases.time_ms[rows],
        request_id,
    ]
    return pa.table(columns, schema=ACTIONS)


def hash_of(seed: int, first: Ints, second: Ints) -> npt.NDArray[np.uint64]:
    """Return 64 well-mixed bits for a seed and two integers."""
    step = np.uint64(GOLDEN_GAMMA)
    with np.errstate(over="ignore"):
        once = finalise(first.astype(np.uint64) + np.uint64(seed) * step)
        return finalise(once + second.astype(np.uint64) * step)
