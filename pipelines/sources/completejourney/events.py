"""Impressions and actions of the Complete Journey adapter: who was shown what, who bought what.

All draws are hashes of ids and a fixed seed. There is no generator state, so every machine draws
the same. Not for embeddings: `pipelines.sources.completejourney.embeddings`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.contracts.hashing import GOLDEN_GAMMA, finalise
from pipelines.contracts.schemas import ACTIONS, IMPRESSIONS
from pipelines.event_log.event_index import place_in_run

Ints = npt.NDArray[np.int64]

CANDIDATES_PER_REQUEST = 30
SEED = 20170101
_NUM_DRAWS = 64
_SMALL_POOL = 256  # a pool of at most this many promotions is ranked, not drawn from
_PRODUCT_BITS, _PLACEMENT_BITS = 20, 4


@dataclass(frozen=True)
class Promotions:
    """What was promoted where: one entry per (store-week, product), sorted by both.

    A store-week is a store in a week; `store_weeks` and `product_ids` give each of them a rank.
    """

    store_weeks: Ints  # distinct store * 100 + week, sorted
    product_ids: Ints  # distinct products, sorted
    keys: Ints  # store-week rank << 20 | product rank, sorted
    num_rows: Ints  # rows of the source for this entry; two where it lists two placements
    display: pa.DictionaryArray  # names of placements
    mailer: pa.DictionaryArray


@dataclass(frozen=True)
class Purchases:
    """Transactions by (time, basket_id, product_id); a basket has one time, store and household."""

    user_id: Ints
    basket_id: Ints
    pin_id: Ints
    time_ms: Ints
    num_units: Ints
    has_coupon: npt.NDArray[np.bool_]
    store_week: Ints  # rank in Promotions.store_weeks; -1: that store-week had no promotion
    promotion: Ints  # entry in Promotions; -1: bought off promotion

    @property
    def is_promoted(self) -> npt.NDArray[np.bool_]:
        """Bought on promotion."""
        return self.promotion >= 0


class Candidates(NamedTuple):
    """Pins that a request may show, one entry per (request, promotion)."""

    request: Ints
    priority: Ints  # lowest first; below 0 for what was bought, which is always shown
    promotion: Ints  # entry in Promotions

    def rows(self, chosen: npt.NDArray[np.generic]) -> "Candidates":
        """Return some of the entries, or all in another order."""
        return Candidates(*(column[chosen] for column in self))


def read_promotions(source: Path) -> Promotions:
    """Read the promotions; of two placements of a product, the greater one is kept.

    Every listed product counts as promoted, also where both placements are '0', which means none:
    the row itself says that the product was in the week's promotion.
    """
    placements = ["display_location", "mailer_location"]
    table = pq.read_table(source / "promotions.parquet", read_dictionary=placements)
    store_week = np.asarray(table["store_id"]) * 100 + np.asarray(table["week"])
    store_weeks, store_week_rank = _ranks(store_week)
    product_ids, product_rank = _ranks(np.asarray(table["product_id"]))
    display_names, display = _codes(table["display_location"])
    mailer_names, mailer = _codes(table["mailer_location"])
    # One sortable integer per row: a plain sort of 21 M integers is a second's work.
    packed = store_week_rank << _PRODUCT_BITS
    for part, num_bits in (
        (product_rank, 0),
        (display, _PLACEMENT_BITS),
        (mailer, _PLACEMENT_BITS),
    ):
        packed <<= num_bits
        packed |= part
    packed.sort()
    keys = packed >> (2 * _PLACEMENT_BITS)
    last = np.flatnonzero(np.concatenate([np.diff(keys) != 0, [True]]))
    packed = packed[last]
    mask = (1 << _PLACEMENT_BITS) - 1
    return Promotions(
        store_weeks=store_weeks,
        product_ids=product_ids,
        keys=keys[last],
        num_rows=np.diff(last, prepend=-1),
        display=pa.DictionaryArray.from_arrays(packed >> _PLACEMENT_BITS & mask, display_names),
        mailer=pa.DictionaryArray.from_arrays(packed & mask, mailer_names),
    )


def read_purchases(source: Path, promotions: Promotions) -> Purchases:
    """Read the transactions and find each one's promotion.

    Every transaction row counts as a purchase, the 0.6 % with a quantity of zero included.
    """
    table = pq.read_table(source / "transactions.parquet")
    time_ms = np.asarray(table["transaction_timestamp"].cast(pa.timestamp("ms"))).astype(np.int64)
    column = {name: np.asarray(table[name]) for name in table.column_names}
    order = np.lexsort((column["product_id"], column["basket_id"], time_ms))
    column = {name: values[order] for name, values in column.items()}
    store_week = _find(promotions.store_weeks, column["store_id"] * 100 + column["week"])
    product = _find(promotions.product_ids, column["product_id"])
    promotion = _find(promotions.keys, store_week << _PRODUCT_BITS | product)
    is_listed = (store_week >= 0) & (product >= 0)
    return Purchases(
        user_id=column["household_id"],
        basket_id=column["basket_id"],
        pin_id=column["product_id"],
        time_ms=time_ms[order],
        num_units=column["quantity"],
        has_coupon=(column["coupon_disc"] > 0) | (column["coupon_match_disc"] > 0),
        store_week=store_week,
        promotion=np.where(is_listed, promotion, -1),
    )


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
    drawn = _draw(baskets, promotions, purchases.store_week[first])
    shown = _choose(
        Candidates(
            request=np.concatenate([request, drawn.request]),
            priority=np.concatenate([np.full(len(request), -1), drawn.priority]),
            promotion=np.concatenate([purchases.promotion[bought], drawn.promotion]),
        )
    )
    product_rank = promotions.keys[shown.promotion] & ((1 << _PRODUCT_BITS) - 1)
    product = promotions.product_ids[product_rank]
    shuffle = hash_of(SEED + 1, baskets[shown.request], product)
    time_ms = purchases.time_ms[first][shown.request]
    order = np.lexsort((shuffle, baskets[shown.request], time_ms))
    shown, time_ms = shown.rows(order), time_ms[order]
    columns = [
        pa.array(baskets[shown.request]).cast(pa.string()),
        purchases.user_id[first][shown.request],
        product[order],
        time_ms,
        time_ms,
        place_in_run(shown.request),
        pa.repeat("store", len(order)),
        np.zeros(len(order), dtype=bool),
        pa.nulls(len(order), pa.float32()),
        promotions.display.take(shown.promotion),
        promotions.mailer.take(shown.promotion),
    ]
    placements = [pa.field(name, pa.string()) for name in ("display_location", "mailer_location")]
    return pa.table(columns, schema=pa.schema([*IMPRESSIONS, *placements]))


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


def _draw(baskets: Ints, promotions: Promotions, store_week: Ints) -> Candidates:
    """Return draws from what the requests may show; a promotion may come up again.

    A request's pool is what was promoted in its store and week: a range of `promotions`. Large
    pools are drawn from with replacement, and the priority is the number of the draw: the first
    distinct ones are then an even draw without replacement. Small pools are taken whole, and the
    priority is a hash.
    """
    pool_start = np.searchsorted(promotions.keys, store_week << _PRODUCT_BITS)
    pool_end = np.searchsorted(promotions.keys, (store_week + 1) << _PRODUCT_BITS)
    pool_size = pool_end - pool_start
    is_small = pool_size <= _SMALL_POOL
    large = np.flatnonzero(~is_small)
    request = np.repeat(large, _NUM_DRAWS)
    number = np.tile(np.arange(_NUM_DRAWS), len(large))
    bits = hash_of(SEED, baskets[request], number)
    offset = (bits % pool_size[request].astype(np.uint64)).astype(np.int64)
    small = np.flatnonzero(is_small)
    small_request = np.repeat(small, pool_size[small])
    small_offset = place_in_run(small_request)
    rank_bits = hash_of(SEED, baskets[small_request], small_offset) >> np.uint64(40)
    all_request = np.concatenate([request, small_request])
    all_offset = np.concatenate([offset, small_offset])
    return Candidates(
        request=all_request,
        priority=np.concatenate([number, rank_bits.astype(np.int64)]),
        promotion=pool_start[all_request] + all_offset,
    )


def _choose(drawn: Candidates) -> Candidates:
    """Return each request's distinct promotions of lowest priority: all below 0, then up to 30."""
    by_promotion = drawn.rows(np.lexsort((drawn.priority, drawn.promotion, drawn.request)))
    is_new = (np.diff(by_promotion.request) != 0) | (np.diff(by_promotion.promotion) != 0)
    distinct = by_promotion.rows(np.concatenate([[True], is_new]))
    ranked = distinct.rows(np.lexsort((distinct.promotion, distinct.priority, distinct.request)))
    is_early = place_in_run(ranked.request) < CANDIDATES_PER_REQUEST
    return ranked.rows(is_early | (ranked.priority < 0))


def _ranks(values: Ints) -> tuple[Ints, Ints]:
    """Return the distinct values, sorted, and each value's rank; quick where values are few."""
    encoded = pc.dictionary_encode(pa.array(values))
    distinct = np.asarray(encoded.dictionary)
    order = np.argsort(distinct)
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return distinct[order], rank[np.asarray(encoded.indices)]


def _codes(column: pa.ChunkedArray) -> tuple[list[str], Ints]:
    """Return the sorted names of a text column and each row's code into them."""
    column = column.unify_dictionaries().combine_chunks()
    names = column.dictionary.to_pylist()
    ordered = sorted(names)
    rank = np.array([ordered.index(name) for name in names], dtype=np.int64)
    return ordered, rank[np.asarray(column.indices)]


def _find(sorted_values: Ints, wanted: Ints) -> Ints:
    """Return the place of each wanted value, -1 where it is not among them."""
    place = np.minimum(np.searchsorted(sorted_values, wanted), len(sorted_values) - 1)
    return np.where(sorted_values[place] == wanted, place, -1)
