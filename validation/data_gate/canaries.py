"""Canaries: embeddings that are kept, so that a change under an unchanged version is seen.

An embedding version is a fixed basis, and a row of users belongs to one instant. So the vector of a
pin, and that of a user at a time, never change. A few hundred of each are kept with an accepted
snapshot and are looked up in the next one of the same version. If they are other vectors there,
the champion, which learned the old ones, ranks by noise; a challenger that learned the new ones
would win by the champion's loss alone.

    canaries.arrow    kind, id, as_of, embedding; the version in the schema

More than a hundredth of changed embeddings is critical, fewer are a warning. Not for whether
embeddings are any good (`rows`).
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from pipelines.contracts.arrow import to_list_column, to_numpy
from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.hashing import hash_rows, mix
from pipelines.contracts.schemas import PINS_FILE
from pipelines.contracts.snapshot_files import open_table
from pipelines.contracts.time import DAY_MS, to_ms

if TYPE_CHECKING:
    from validation.data_gate.snapshot_profile import Reference, SnapshotProfile

log = logging.getLogger(__name__)

CANARIES_FILE = "canaries.arrow"
NUM_CANARIES = 512
"""Of each kind. A change of 1 % of all embeddings misses none of 512 in one case of 170."""
USER_DAYS = 14
"""Rows of users are kept from so many days before as_of, because the next snapshot has them too."""
FEWEST_COMPARED = 20
PINS_PER_PART = 1 << 18
"""Pins that are in memory at a time."""
LARGEST_DIFFERENCE = 1e-3
"""Of a vector's length: what rounding, or float16 in between, may change."""
CHANGED = "changed_share"
_SEED = 20_170
_VERSION = b"embedding_version"

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Canaries:
    """Kept embeddings of one version."""

    embedding_version: str
    pins: "Vectors"
    users: "Vectors"


@dataclass(frozen=True)
class Vectors:
    """Embeddings by (id, as_of); of pins, as_of is 0."""

    ids: npt.NDArray[np.int64]
    as_of: npt.NDArray[np.int64]
    vectors: Floats  # [n, width]

    def at(self, rows: npt.NDArray[Any]) -> "Vectors":
        """Return some of them."""
        return Vectors(self.ids[rows], self.as_of[rows], self.vectors[rows])


class Compared(NamedTuple):
    """What became of the canaries of one kind."""

    num_compared: int
    num_changed: int
    phrase: str  # What was changed, and how it looks; '' where nothing was.

    @property
    def changed_share(self) -> float:
        """The changed ones among the compared ones; NaN where nothing could be compared."""
        return self.num_changed / self.num_compared if self.num_compared else float("nan")


def choose_canaries(snapshot: Snapshot, snapshot_dir: Path) -> Canaries:
    """Return the canaries of a snapshot: of pins and recent users, those of the smallest hashes."""
    earliest = to_ms(snapshot.as_of) - USER_DAYS * DAY_MS
    users = (part.at(part.as_of >= earliest) for part in _users_of(snapshot, snapshot_dir))
    return Canaries(
        snapshot.embedding_version,
        smallest_hashes(_pins_of(snapshot_dir)),
        smallest_hashes(users),
    )


def compare_canaries(kept: Canaries, snapshot: Snapshot, snapshot_dir: Path) -> dict[str, Compared]:
    """Return, for 'pins' and 'users', which canaries have other embeddings in a snapshot.

    Args:
        kept: Of the last accepted snapshot, of the same embedding version.
        snapshot: What is judged.
        snapshot_dir: Local folder with its files.
    """
    return {
        "pins": compare_vectors("pin", kept.pins, _pins_of(snapshot_dir)),
        "users": compare_vectors("user", kept.users, _users_of(snapshot, snapshot_dir)),
    }


def write_canaries(canaries: Canaries, path: Path) -> None:
    """Write the canaries to an Arrow file."""
    parts = {"pin": canaries.pins, "user": canaries.users}
    tables = [
        pa.table(
            {
                "kind": [kind] * len(part.ids),
                "id": part.ids,
                "as_of": part.as_of,
                "embedding": to_list_column(part.vectors),
            }
        )
        for kind, part in parts.items()
    ]
    table = pa.concat_tables(tables).replace_schema_metadata(
        {_VERSION: canaries.embedding_version.encode()}
    )
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table.combine_chunks())


def read_canaries(data: bytes) -> Canaries | None:
    """Return the canaries in a file; None, and a warning in the log, if it is damaged."""
    try:
        table = pa.ipc.open_file(pa.BufferReader(data)).read_all()
        kinds = np.array(table["kind"].to_pylist())
        whole = Vectors(
            to_numpy(table["id"]), to_numpy(table["as_of"]), to_numpy(table["embedding"])
        )
        version = (table.schema.metadata or {})[_VERSION].decode()
    except (pa.ArrowInvalid, KeyError, OSError, ValueError) as error:
        log.warning("the kept canaries are damaged: %r", error)
        return None
    pins, users = (whole.at(np.flatnonzero(kinds == kind)) for kind in ("pin", "user"))
    return Canaries(version, pins, users)


def _pins_of(snapshot_dir: Path) -> Iterator[Vectors]:
    """Yield the pins that have an embedding, in parts."""
    table = open_table(snapshot_dir, PINS_FILE)
    for start in range(0, len(table), PINS_PER_PART):
        part = table.slice(start, PINS_PER_PART)
        ids, vectors = to_numpy(part["pin_id"]), to_numpy(part["embedding"])
        yield Vectors(ids, np.zeros_like(ids), vectors).at(np.flatnonzero(vectors.any(axis=1)))


def _users_of(snapshot: Snapshot, snapshot_dir: Path) -> Iterator[Vectors]:
    """Yield each shard's rows of users that the log had; a newcomer's row, as of 0, is made up."""
    for shard in snapshot.shards:
        table = open_table(snapshot_dir, f"{shard.name}/users.arrow")
        rows = Vectors(*(to_numpy(table[name]) for name in ("user_id", "as_of", "embedding")))
        yield rows.at(rows.as_of > 0)


def smallest_hashes(parts: Iterable[Vectors]) -> Vectors:
    """Return the canaries among some rows, of which only one part is in memory at a time."""
    best: Vectors | None = None
    for part in parts:
        both = part if best is None or not len(best.ids) else _joined([best, part])
        order = np.lexsort((both.as_of, mix(both.ids, _SEED)))
        best = both.at(order[:NUM_CANARIES])
    assert best is not None, "a snapshot has pins, and at least one shard"
    return best


def _joined(parts: Sequence[Vectors]) -> Vectors:
    names = ("ids", "as_of", "vectors")
    return Vectors(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def compare_vectors(what: str, kept: Vectors, parts: Iterable[Vectors]) -> Compared:
    """Compare kept vectors with those of the same keys.

    Args:
        what: One of them is called, such as "pin".
        kept: What must not have changed.
        parts: What there is now.
    """
    digests, looked_up = [], []
    for part in parts:
        digests.append(hash_rows(part.vectors))
        looked_up.append(part.at(np.isin(part.ids, kept.ids)))
    now = _joined(looked_up)
    places = _places(kept, now)
    known, found = kept.at(np.flatnonzero(places >= 0)), now.at(places[places >= 0])
    if len(known.ids) == 0:
        return Compared(0, 0, "")
    if known.vectors.shape[1] != found.vectors.shape[1]:
        widths = f"{known.vectors.shape[1]} to {found.vectors.shape[1]} numbers"
        return Compared(len(known.ids), len(known.ids), f"all are of another width, {widths}")
    difference = np.linalg.norm(known.vectors - found.vectors, axis=1)
    longest = np.maximum(np.linalg.norm(known.vectors, axis=1), 1e-12)
    changed = np.flatnonzero(difference > LARGEST_DIFFERENCE * longest)
    if len(changed) == 0:
        return Compared(len(known.ids), 0, "")
    names = ", ".join(str(each) for each in known.ids[changed[:3]])
    how = _how(known.at(changed), found.at(changed), np.concatenate(digests))
    phrase = f"{len(changed)} of {len(known.ids)} {what}s, such as {names}, {how}"
    return Compared(len(known.ids), len(changed), phrase)


def _places(kept: Vectors, now: Vectors) -> npt.NDArray[np.int64]:
    """Return the row of each key among others, -1 where it is not there."""
    keys = zip(now.ids.tolist(), now.as_of.tolist(), strict=True)
    place = {key: row for row, key in enumerate(keys)}
    wanted = zip(kept.ids.tolist(), kept.as_of.tolist(), strict=True)
    return np.array([place.get(key, -1) for key in wanted], dtype=np.int64)


def _how(before: Vectors, after: Vectors, digests: npt.NDArray[np.uint64]) -> str:
    """Return in words how vectors differ from what they were."""
    if not after.vectors.any():
        return "are zeros now"
    if len(np.unique(after.vectors, axis=0)) == 1 and len(after.ids) > 1:
        return "have one and the same vector now"
    if np.isin(hash_rows(before.vectors), digests).mean() > 0.5:
        return "have the vectors of others now: they were shuffled"
    if len(before.ids) > 2 and _angles_stay(before.vectors, after.vectors):
        return "were turned into another basis: the angles between them are as they were"
    return "have other vectors now"


def _angles_stay(before: Floats, after: Floats) -> bool:
    first, second = (part[:64] @ part[:64].T for part in (before, after))
    return bool(np.abs(first - second).max() <= 1e-2 * max(float(np.abs(first).max()), 1e-12))


class JudgedCanaries(NamedTuple):
    """What the gate's checks need to know of the canaries."""

    table: pd.DataFrame  # partition (pins, users), CHANGED
    phrases: dict[tuple[str, str], str]
    not_judged: str  # why nothing was compared; '' where something was


def judge_canaries(
    snapshot: Snapshot,
    snapshot_dir: Path,
    profile: "SnapshotProfile",
    reference: "Reference | None",
    path: Path,
) -> JudgedCanaries:
    """Compare a snapshot with the kept canaries, and keep its own.

    Args:
        snapshot: What is judged.
        snapshot_dir: Local folder with its files.
        profile: Its profile.
        reference: The last accepted snapshot; None in the first cycle.
        path: The file for its own canaries.
    """
    none = pd.DataFrame(columns=["partition", CHANGED])
    if not snapshot.shards or profile.unmeasured_shards or profile.pins.has("schema", "no_nulls"):
        return JudgedCanaries(none, {}, "the snapshot's files cannot be read or measured")
    write_canaries(choose_canaries(snapshot, snapshot_dir), path)
    if reference is None:
        return JudgedCanaries(none, {}, "no earlier accepted snapshot to compare with")
    kept = reference.canaries
    if kept is None:
        return JudgedCanaries(none, {}, "no embeddings of the last accepted snapshot were kept")
    if kept.embedding_version != snapshot.embedding_version:
        return JudgedCanaries(none, {}, f"{kept.embedding_version!r} was the version before")
    found = {
        kind: compared
        for kind, compared in compare_canaries(kept, snapshot, snapshot_dir).items()
        if compared.num_compared >= FEWEST_COMPARED
    }
    rows = [(kind, compared.changed_share) for kind, compared in found.items()]
    phrases = {(kind, CHANGED): compared.phrase for kind, compared in found.items()}
    too_few = "" if found else f"fewer than {FEWEST_COMPARED} kept embeddings are in the snapshot"
    return JudgedCanaries(pd.DataFrame(rows, columns=["partition", CHANGED]), phrases, too_few)
