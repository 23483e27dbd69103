"""Checks of every pin of a snapshot: its embedding, its place in the order, its codes.

The pins are read a million at a time. Not for how many candidates lack an embedding, where a pin
counts as often as it is shown (`validation.data_gate.measures`).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.contracts.arrow import to_numpy
from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.schemas import PIN_TIME, PINS_FILE, categorical_column
from validation.data_gate.broken_rows import FILE_RULES, BrokenRows, read_tables
from validation.data_gate.measures import Measures, add_codes

PIN_RULES = ("bad_pin_embeddings", "bad_embedding_norms", "disordered_pins", "bad_pin_codes")
"""The rules of the pins' rows, besides those of their file."""
PINS_PER_CHUNK = 1 << 20
"""A chunk's embeddings take 4 MB for each component, and twice that as float64."""
NORM_RANGE = (1e-3, 1e3)
"""Lengths allowed for an embedding that is not all zero. A wrong unit or type gives others."""


@dataclass
class CheckedPins:
    """What was found out about the pins. `is_zero` is None where they could not be read."""

    broken: BrokenRows = field(default_factory=lambda: BrokenRows((*FILE_RULES, *PIN_RULES)))
    is_zero: NDArray[np.bool_] | None = None  # (pins,) embedding all zero
    known_at: NDArray[np.int64] | None = None  # (pins,) where the log says when it knew them
    embedding_dim: int = 0  # 0 where the pins could not be read
    measures: Measures = field(default_factory=Measures)  # of the codes
    num_sound: int = 0  # pins with a finite embedding that is not all zero
    norm_sum: float = 0.0
    vector_sum: NDArray[np.float64] = field(default_factory=lambda: np.zeros(1))  # (width,)
    square_sum: float = 0.0

    @property
    def mean_norm(self) -> float:
        """Mean length of the embeddings that are not all zero; NaN if there is none."""
        return self.norm_sum / self.num_sound if self.num_sound else float("nan")

    @property
    def spread(self) -> float:
        """1 - |mean vector|^2 / mean squared length; 0 if all pins are alike, and at most 1."""
        if not self.num_sound:
            return float("nan")
        mean = self.vector_sum / self.num_sound
        return 1.0 - float(mean @ mean) / (self.square_sum / self.num_sound)


def check_pins(snapshot: Snapshot, snapshot_dir: Path) -> CheckedPins:
    """Check every pin of a snapshot."""
    found = CheckedPins()
    broken = found.broken
    table = read_tables(snapshot_dir, snapshot, [PINS_FILE], broken).get("pins")
    if table is not None and table.num_rows != snapshot.num_pins:
        counts = f"{table.num_rows:,} pins, the manifest says {snapshot.num_pins:,}"
        broken.add_phrases("schema_problems", [counts])
    if table is not None and not broken.has("schema_problems", "null_values"):
        found.embedding_dim = table.schema.field("embedding").type.list_size
        if PIN_TIME.name in table.column_names:
            found.known_at = to_numpy(table[PIN_TIME.name])
        _check_rows(table, found)
        _check_codes(table, snapshot, found)
    return found


def _check_rows(table: pa.Table, found: CheckedPins) -> None:
    """Check ids and embeddings, mark embeddings of zeros, and sum what the spread needs."""
    is_zero = np.zeros(table.num_rows, dtype=bool)
    for rule in ("bad_pin_embeddings", "bad_embedding_norms", "disordered_pins"):
        found.broken.add_phrases(rule, [])
    for start in range(0, table.num_rows, PINS_PER_CHUNK):
        # A chunk begins with the last row of the chunk before, so that their order is checked too.
        overlap = min(1, start)
        chunk = table.slice(start - overlap, PINS_PER_CHUNK + overlap)
        pin_id = to_numpy(chunk["pin_id"])
        phrase = _phrases(pin_id[1:])
        found.broken.add(
            "disordered_pins", np.diff(pin_id) <= 0, phrase("is repeated or unordered")
        )
        vectors = to_numpy(chunk["embedding"])[overlap:].astype(np.float64)
        phrase = _phrases(pin_id[overlap:])
        is_finite = np.asarray(np.isfinite(vectors).all(axis=1))
        norm = np.sqrt((np.where(is_finite[:, None], vectors, 0.0) ** 2).sum(axis=1))
        is_odd = (norm > 0) & ((norm < NORM_RANGE[0]) | (norm > NORM_RANGE[1]))
        found.broken.add(
            "bad_pin_embeddings", ~is_finite, phrase("has a NaN or infinite embedding")
        )
        found.broken.add("bad_embedding_norms", is_odd, phrase("has an embedding of odd length"))
        is_zero[start : start + len(norm)] = is_finite & (norm == 0)
        sound = vectors[norm > 0]
        found.num_sound += len(sound)
        found.norm_sum += float(norm.sum())
        found.vector_sum = found.vector_sum + sound.sum(axis=0)
        found.square_sum += float((sound**2).sum())
    found.is_zero = is_zero


def _phrases(pin_id: NDArray[np.int64]) -> Callable[[str], Callable[[int], str]]:
    """Return a function from a fault to the phrase about the pin in a row."""
    return lambda what: lambda i: f"pin {pin_id[i]} {what}"


def _check_codes(table: pa.Table, snapshot: Snapshot, found: CheckedPins) -> None:
    """Check and count the pins' categorical codes."""
    found.broken.add_phrases("bad_pin_codes", [])
    for feature in snapshot.features.categorical_of("pins"):
        column, most = categorical_column(feature.name), len(feature.values)
        codes = to_numpy(table[column])
        if found.broken.check_range("bad_pin_codes", codes, column, 0, most):
            add_codes(found.measures, feature, table)
