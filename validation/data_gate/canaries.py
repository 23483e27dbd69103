"""Canaries: embeddings that are kept, so that a change under an unchanged version is seen.

An embedding version is a fixed basis, and a row of users belongs to one instant. So the vector of a
pin, and that of a user at a time, never change. A few hundred of each are kept with an accepted
snapshot and are looked up in the next one of the same version. If they are other vectors there,
the champion, which learned the old ones, ranks by noise; a challenger that learned the new ones
would win by the champion's loss alone.

    canaries.arrow    kind, id, as_of, embedding; the version in the schema

More than a hundredth of changed embeddings is critical, fewer are a warning. New pins have no kept
vectors. But theirs are near to those of some kept pin, as kept ones are to each other, unless they
are of another basis; and they differ from each other. Vectors that were swapped among new pins are
not seen. Not for whether embeddings are any good (`rows`).
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.contracts import data_rules
from pipelines.contracts.arrow import to_list_column, to_numpy
from pipelines.contracts.artifacts import Severity, Snapshot
from pipelines.contracts.hashing import mix
from pipelines.contracts.schemas import PINS_FILE
from pipelines.contracts.snapshot_files import open_table
from pipelines.contracts.time import DAY_MS, to_ms
from validation.data_gate.gx_runner import Check

CANARIES_FILE = "canaries.arrow"
NUM_CANARIES = 512
"""Of each kind. A change of 1 % of all embeddings misses none of 512 in one case of 170."""
USER_DAYS = 14
"""Rows of users are kept from so many days before as_of, because the next snapshot has them too."""
FEWEST_COMPARED, FEWEST_NEW = 20, 12
PINS_PER_PART = 1 << 18
"""Pins that are in memory at a time."""
LARGEST_DIFFERENCE = 1e-3
"""Of a vector's length: what rounding, or float16 in between, may change."""
_SEED = 20_170
_VERSION = b"embedding_version"

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Vectors:
    """Embeddings by (id, as_of); of pins, as_of is 0."""

    ids: npt.NDArray[np.int64]
    as_of: npt.NDArray[np.int64]
    vectors: Floats  # [n, width]

    def at(self, rows: npt.NDArray[Any]) -> "Vectors":
        """Return some of them."""
        return Vectors(self.ids[rows], self.as_of[rows], self.vectors[rows])

    @staticmethod
    def joined(parts: Sequence["Vectors"]) -> "Vectors":
        """Return the vectors of several parts, of which there is at least one."""
        columns = zip(*((part.ids, part.as_of, part.vectors) for part in parts), strict=True)
        return Vectors(*map(np.concatenate, columns))


@dataclass(frozen=True)
class Canaries:
    """Kept embeddings of one version."""

    embedding_version: str
    pins: Vectors
    users: Vectors


Found = Mapping[str, tuple[float, str]]
"""By kind, the share of the canaries that are changed, and what is said of it."""


def choose_canaries(snapshot: Snapshot, snapshot_dir: Path) -> Canaries:
    """Return the canaries of a snapshot: of pins and recent users, those of the smallest hashes."""
    earliest = to_ms(snapshot.as_of) - USER_DAYS * DAY_MS
    users = (part.at(part.as_of >= earliest) for part in users_of(snapshot, snapshot_dir))
    return Canaries(
        snapshot.embedding_version, smallest_hashes(pins_of(snapshot_dir)), smallest_hashes(users)
    )


def write_canaries(canaries: Canaries, path: Path) -> None:
    """Write the canaries to an Arrow file."""
    both = Vectors.joined([canaries.pins, canaries.users])
    kinds = ["pin"] * len(canaries.pins.ids) + ["user"] * len(canaries.users.ids)
    columns = {"kind": pa.array(kinds, pa.string()), "id": both.ids, "as_of": both.as_of,
               "embedding": to_list_column(both.vectors)}  # fmt: skip
    table = pa.table(columns, metadata={_VERSION: canaries.embedding_version.encode()})
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table)


def read_canaries(data: bytes) -> Canaries:
    """Return the canaries in a file."""
    table = pa.ipc.open_file(pa.BufferReader(data)).read_all()
    kinds = np.array(table["kind"].to_pylist())
    whole = Vectors(*(to_numpy(table[name]) for name in ("id", "as_of", "embedding")))
    version = table.schema.metadata[_VERSION].decode()
    return Canaries(version, *(whole.at(np.asarray(kinds == kind)) for kind in ("pin", "user")))


def pins_of(snapshot_dir: Path) -> Iterator[Vectors]:
    """Yield the pins that have an embedding, in parts."""
    table = open_table(snapshot_dir, PINS_FILE)
    for start in range(0, len(table), PINS_PER_PART):
        part = table.slice(start, PINS_PER_PART)
        ids, vectors = to_numpy(part["pin_id"]), to_numpy(part["embedding"])
        yield Vectors(ids, np.zeros_like(ids), vectors).at(np.asarray(vectors.any(axis=1)))


def users_of(snapshot: Snapshot, snapshot_dir: Path) -> Iterator[Vectors]:
    """Yield each shard's rows of users that the log had; a newcomer's row, as of 0, is made up."""
    for shard in snapshot.shards:
        table = open_table(snapshot_dir, f"{shard.name}/users.arrow")
        rows = Vectors(*(to_numpy(table[name]) for name in ("user_id", "as_of", "embedding")))
        yield rows.at(rows.as_of > 0)


def smallest_hashes(parts: Iterable[Vectors]) -> Vectors:
    """Return the canaries among some rows, of which only one part is in memory at a time."""
    best: Vectors | None = None
    for part in parts:
        both = Vectors.joined([best, part]) if best else part
        best = both.at(np.lexsort((both.as_of, mix(both.ids, _SEED)))[:NUM_CANARIES])
    assert best is not None, "a snapshot has pins, and at least one shard"
    return best


def compare_vectors(what: str, kept: Vectors, parts: Iterable[Vectors]) -> tuple[float, str]:
    """Return the share of kept vectors that those of the same keys differ from, and its phrase.

    The share is NaN where fewer than FEWEST_COMPARED are found.

    Args:
        what: They are called, such as "pins".
        kept: What must not have changed.
        parts: What there is now.
    """
    now = Vectors.joined([part.at(np.isin(part.ids, kept.ids)) for part in parts])
    rows = {key: row for row, key in enumerate(zip(now.ids, now.as_of, strict=True))}
    keys = zip(kept.ids, kept.as_of, strict=True)
    places = np.array([rows.get(key, -1) for key in keys], dtype=np.int64)
    known, found = kept.at(places >= 0), now.at(places[places >= 0])
    if (num := len(known.ids)) < FEWEST_COMPARED:
        return math.nan, ""
    is_changed = np.ones(num, dtype=bool)  # where they are of another width
    if known.vectors.shape == found.vectors.shape:
        difference = np.linalg.norm(known.vectors - found.vectors, axis=1)
        longest = np.maximum(np.linalg.norm(known.vectors, axis=1), 1e-12)
        is_changed = difference > LARGEST_DIFFERENCE * longest
    names = ", ".join(map(str, known.ids[is_changed][:3]))
    said = f"{is_changed.sum()} of {num} {what}, such as {names}, have other vectors now"
    return float(is_changed.mean()), said if names else ""


def compare_new(kept: Vectors, parts: Iterable[Vectors]) -> dict[str, float]:
    """Return how near new pins lie to kept ones, for certain, and how many of their vectors differ.

    Both are shares of the same of kept pins. Pins that would have been kept had they been there are
    new; with too few of them nothing is returned.

    Args:
        kept: Pins of the last accepted snapshot.
        parts: The pins that there are now.
    """
    is_all = len(kept.ids) < NUM_CANARIES
    last = np.uint64(2**64 - 1) if is_all else mix(kept.ids, _SEED).max()
    new = smallest_hashes(
        part.at((mix(part.ids, _SEED) <= last) & ~np.isin(part.ids, kept.ids)) for part in parts
    ).vectors
    old = kept.vectors
    if len(new) < FEWEST_NEW or len(old) < FEWEST_COMPARED or new.shape[1] != old.shape[1]:
        return {}
    of_new, of_old = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (new, old))
    nearest, others = (of_new @ of_old.T).max(axis=1), of_old @ of_old.T
    np.fill_diagonal(others, -1.0)
    near = nearest.mean() + 2 * nearest.std() / math.sqrt(len(new))
    differ = [len(np.unique(each, axis=0)) / len(each) for each in (new, old)]
    return {"nearness": near / others.max(axis=1).mean(), "variety": differ[0] / differ[1]}


def canary_checks(
    found: Found, not_judged: str, new: Mapping[str, float] = MappingProxyType({})
) -> tuple[Check, ...]:
    """Return the checks that kept embeddings are as they were.

    Args:
        found: What became of the canaries of each kind.
        not_judged: Why nothing was compared, or nothing.
        new: See `compare_new`.
    """
    few = not_judged or ("" if new else f"fewer than {FEWEST_NEW} pins that would be kept are new")
    like = "New pins' embeddings: how near to kept pins, and how many differ, as a share of kept."
    least = data_rules.NEW_EMBEDDINGS
    of_new = Check("new_embeddings_like_accepted", Severity.CRITICAL, like, "new_pins", new,
                   "share", least, None, few)  # fmt: skip
    shares = {kind: share for kind, (share, _) in found.items() if not math.isnan(share)}
    if not shares and not not_judged:
        not_judged = f"fewer than {FEWEST_COMPARED} kept embeddings are in the snapshot"
    phrases = {kind: phrase for kind, (_, phrase) in found.items()}
    said = "Embeddings that change under an unchanged version, of those that were kept."
    bounds = data_rules.CHANGED_EMBEDDINGS
    return of_new, *(
        Check(name, severity, said, "canaries", shares, "share", None, bound, not_judged, phrases)
        for name, severity, bound in (
            ("embeddings_as_accepted", Severity.CRITICAL, bounds.critical),
            ("every_embedding_as_accepted", Severity.WARNING, bounds.warning),
        )
    )
