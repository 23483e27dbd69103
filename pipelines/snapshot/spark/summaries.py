"""Summaries on their way to the driver: small, and each count once.

A summary knows how often each pin was acted upon on each day and when each appeared, which may be
millions of numbers, and Spark holds what it brings to the driver in its Java process. So counts of
the same pin and days are added up first, and sorted columns travel as differences, compressed.
Tested in tests/pipelines/snapshot/spark/test_summaries.py.
"""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipelines.event_log.event_index import Ints
from pipelines.event_log.first_seen import FirstSeen
from pipelines.event_log.popularity import ActionCounts
from pipelines.snapshot.spill import SpillSummary, merge_summaries

_CODEC = "zstd"


@dataclass(frozen=True)
class PackedInts:
    """Whole numbers as the compressed differences between them."""

    length: int
    content: bytes


@dataclass(frozen=True)
class PackedSummary:
    """A `SpillSummary` as it travels."""

    pin_ids: PackedInts
    wanted_actions: tuple[PackedInts, ...]  # in the order of the fields of `ActionCounts`
    first_seen: tuple[PackedInts, ...]  # in the order of the fields of `FirstSeen`
    rest: SpillSummary  # with none of these


def pack(found: SpillSummary) -> PackedSummary:
    """Return a summary in the form in which it travels."""
    nothing = SpillSummary()
    rest = dataclasses.replace(
        found,
        pin_ids=nothing.pin_ids,
        wanted_actions=nothing.wanted_actions,
        first_seen=nothing.first_seen,
    )
    return PackedSummary(
        pin_ids=_pack_ints(found.pin_ids),
        wanted_actions=_pack_columns(ActionCounts.merge(found.wanted_actions)),
        first_seen=_pack_columns(FirstSeen.merge(found.first_seen)),
        rest=rest,
    )


def unpack(packed: PackedSummary) -> SpillSummary:
    """Return the summary that was packed; counts of the same pin and days are one row."""
    return dataclasses.replace(
        packed.rest,
        pin_ids=_unpack_ints(packed.pin_ids),
        wanted_actions=(ActionCounts(*map(_unpack_ints, packed.wanted_actions)),),
        first_seen=(FirstSeen(*map(_unpack_ints, packed.first_seen)),),
    )


def merge_packed(parts: Iterable[PackedSummary]) -> SpillSummary:
    """Return what several tasks found together."""
    return merge_summaries([unpack(part) for part in parts])


def _pack_columns(rows: ActionCounts | FirstSeen) -> tuple[PackedInts, ...]:
    return tuple(_pack_ints(getattr(rows, field.name)) for field in dataclasses.fields(rows))


def _pack_ints(numbers: Ints) -> PackedInts:
    steps = np.diff(numbers.astype(np.int64), prepend=np.int64(0))
    return PackedInts(len(numbers), pa.compress(steps.tobytes(), _CODEC, asbytes=True))


def _unpack_ints(packed: PackedInts) -> Ints:
    size = packed.length * np.dtype(np.int64).itemsize
    steps = pa.decompress(packed.content, size, _CODEC, asbytes=True)
    return np.cumsum(np.frombuffer(steps, dtype=np.int64))
