"""Pin and user embeddings of the Complete Journey adapter, in one fixed basis.

The basis comes from who bought what before BASIS_DATE, and it never moves: a product that nobody
had bought by then gets its embedding from its content. So a later embedding can be compared with an
earlier one. Cycles before BASIS_DATE would see their own future in the basis, so evaluate later
ones only. Not a learned encoder, and not for another shop's products.
"""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from scipy import sparse

from pipelines.contracts.arrow import to_list_column, to_numpy
from pipelines.contracts.config import SnapshotConfig
from pipelines.contracts.schemas import EMBEDDING_DIM, PINS, USERS
from pipelines.contracts.time import DAY_MS, to_ms
from pipelines.sources.completejourney.events import Ints, Purchases

Floats = npt.NDArray[np.float64]

EMBEDDING_VERSION = "cj-content-copurchase-1"
BASIS_DATE = datetime(2017, 4, 1, tzinfo=UTC)
CONTENT_COLUMNS = ("department", "product_category", "product_type", "brand", "manufacturer_id")

_SEED = 20170401
_WEEK_MS = 7 * DAY_MS
_CORE_DAYS = SnapshotConfig.model_fields["core_days"].default
_HALF_LIFE_WEEKS = 8.0
_SHRINKAGE = 4.0  # the mean of the content above counts like this many purchases
_DECIMALS = 5  # rounds away what differs between linear-algebra libraries


def make_pins(source: Path, purchases: Purchases) -> pa.Table:
    """Return PINS + content columns for every product of the catalogue and of the purchases.

    A product's vector is the mean of its own co-purchase vector and its content's, weighted by how
    often it was bought before BASIS_DATE; length one.

    Args:
        source: folder of the package's Parquet files.
        purchases: all purchases; only those before BASIS_DATE are used.
    """
    products = pq.read_table(source / "products.parquet")
    catalogue = np.asarray(products["product_id"])
    pin_ids = np.unique(np.concatenate([catalogue, purchases.pin_id]))
    is_basis = purchases.time_ms < to_ms(BASIS_DATE)
    pin = np.searchsorted(pin_ids, purchases.pin_id[is_basis])
    own_PE = _copurchase_vectors(purchases.user_id[is_basis], pin, len(pin_ids))
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
    embedding_PE = _fold(own_PE, num_bought_P, levels)
    columns = [
        pa.array(pin_ids),
        pa.array(np.full(len(pin_ids), EMBEDDING_VERSION)),
        embedding_lists(embedding_PE),
        *contents,
    ]
    extra = [pa.field(name, pa.string()) for name in CONTENT_COLUMNS]
    return pa.table(columns, schema=pa.schema([*PINS, *extra]))


def make_users(purchases: Purchases, pins: pa.Table) -> pa.Table:
    """Return USERS rows for every Monday from a household's first purchase on, by (user, as_of).

    A row of a Monday knows what was bought strictly before it. Its embedding is the mean of the
    bought products' embeddings, scaled to length one; a purchase's weight halves every 8 weeks.
    State is 'new' in the first 28 days after the first purchase, else 'core' with a repin in the
    last 28 days, else 'non_core'. The location is not known.
    """
    user_ids, user = np.unique(purchases.user_id, return_inverse=True)
    # All Mondays (midnight UTC), and per event the number of the first one after it.
    first_monday = 4 * DAY_MS  # the epoch's, 1970-01-05
    week = (purchases.time_ms - first_monday) // _WEEK_MS + 1
    weeks = np.arange(week.min(), week.max() + 1)
    mondays = first_monday + weeks * _WEEK_MS
    pin = np.searchsorted(np.asarray(pins["pin_id"]), purchases.pin_id)
    pins_PE = to_numpy(pins["embedding"]).astype(np.float64)

    first_ms = np.full(len(user_ids), np.iinfo(np.int64).max)
    np.minimum.at(first_ms, user, purchases.time_ms)
    last_repin_ms = np.full(len(user_ids), -_CORE_DAYS * DAY_MS)
    taste_UE = np.zeros((len(user_ids), EMBEDDING_DIM))
    embeddings, states = [], []
    for number, monday in zip(weeks, mondays, strict=True):
        new = np.flatnonzero(week == number)
        bought = sparse.csr_matrix(
            (np.ones(len(new)), (user[new], pin[new])), shape=(len(user_ids), len(pins_PE))
        )
        taste_UE = 0.5 ** (1 / _HALF_LIFE_WEEKS) * taste_UE + bought @ pins_PE
        repins = new[purchases.is_promoted[new]]
        np.maximum.at(last_repin_ms, user[repins], purchases.time_ms[repins])
        is_core = last_repin_ms >= monday - _CORE_DAYS * DAY_MS
        is_new = first_ms >= monday - _CORE_DAYS * DAY_MS
        embeddings.append(_unit_rows(taste_UE))
        states.append(np.where(is_new, "new", np.where(is_core, "core", "non_core")))

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
    right_EP, scale_E = _leading_right_vectors(matrix)
    return right_EP.T * np.sqrt(scale_E)


def _leading_right_vectors(matrix: sparse.csr_matrix) -> tuple[Floats, Floats]:
    """Return the 32 leading right singular vectors and values, by seeded subspace iteration.

    (Halko, Martinsson and Tropp, SIAM Review 2011.) A vector's sign is arbitrary: here its entry
    of largest size is positive.
    """
    generator = np.random.default_rng(_SEED)
    block = generator.normal(size=(matrix.shape[1], EMBEDDING_DIM + 16))
    for _ in range(6):
        block = matrix.T @ np.linalg.qr(matrix @ block)[0]
    block, _ = np.linalg.qr(block)
    left, scale, rotation = np.linalg.svd(matrix @ block, full_matrices=False)
    vectors = (block @ rotation.T).T[:EMBEDDING_DIM]
    largest = np.abs(vectors).argmax(axis=1)
    signs = np.sign(vectors[np.arange(EMBEDDING_DIM), largest])
    return vectors * signs[:, None], scale[:EMBEDDING_DIM]


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
