"""Counts of the rows that break each rule, and the rules that every snapshot file shares.

Not for what a rule means (`validation.data_gate.checks`), nor for the rules of one kind of table
(`shard_checks`, `pin_checks`).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.schemas import categorical_column, snapshot_schema
from pipelines.contracts.snapshot_files import altered_files
from validation.data_gate.arrow_columns import numbers, read_or_explain, schema_problems


@dataclass
class BrokenRows:
    """How many rows break each rule, and a phrase about the first of them.

    The count of a rule is NaN until the rule has been checked.
    """

    counts: dict[str, float] = field(default_factory=dict)
    details: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, rules: Iterable[str]) -> "BrokenRows":
        """Return counts in which none of these rules has been checked yet."""
        return cls(counts=dict.fromkeys(rules, float("nan")))

    def add(self, rule: str, bad: Any, describe: Callable[[int], str]) -> None:
        """Count the marked rows; several calls about one rule add up."""
        bad = np.atleast_1d(np.asarray(bad, dtype=bool))
        before = self.counts[rule]
        self.counts[rule] = (0.0 if np.isnan(before) else before) + float(bad.sum())
        if bad.any() and rule not in self.details:
            self.details[rule] = describe(int(np.argmax(bad)))

    def add_phrases(self, rule: str, phrases: list[str]) -> None:
        """Count one row for each phrase; no phrase means that the rule was checked and holds."""
        self.add(rule, np.ones(len(phrases), dtype=bool), lambda i: phrases[i])


def find_altered(
    snapshot_dir: Path, snapshot: Snapshot, prefix: str, broken: BrokenRows
) -> set[str]:
    """Return the files whose path begins with a prefix and whose content is not the manifest's.

    They are also counted. Each file is hashed once.
    """
    own_files = tuple(file for file in snapshot.files if file.path.startswith(prefix))
    altered = altered_files(snapshot_dir, own_files)
    broken.add_phrases("altered_files", list(altered.values()))
    return set(altered)


def open_checked(
    snapshot_dir: Path, relative: str, snapshot: Snapshot, altered: set[str], broken: BrokenRows
) -> pa.Table | None:
    """Open one file; count the columns that break the contract, and the nulls.

    A file that is not the manifest's is not opened: its damaged bytes could be taken for lengths
    and addresses.
    """
    if relative in altered:
        reason = f"{relative} cannot be read: it is not the file of the manifest"
        broken.add_phrases("schema_problems", [reason])
        return None
    table, reason = read_or_explain(snapshot_dir, relative)
    if table is None:
        broken.add_phrases("schema_problems", [reason])
        return None
    file = Path(relative).stem
    expected = snapshot_schema(file, snapshot.features)
    problems = schema_problems(table, expected)
    broken.add_phrases("schema_problems", [f"{relative}: {problem}" for problem in problems])
    present = [name for name in expected.names if name in table.column_names]
    for name in present:
        is_null = np.asarray(table[name].is_null())
        broken.add("null_values", is_null, partial("{0}.{1} is null in row {2}".format, file, name))
    return table


def bad_codes(
    table: pa.Table, feature: str, num_values: int
) -> tuple[NDArray[np.bool_], Callable[[int], str]]:
    """Return which rows hold a code that is not 0 to `num_values`, and how to describe a row."""
    codes = numbers(table, categorical_column(feature))
    return (codes < 0) | (
        codes > num_values
    ), lambda i: f"cat_{feature} is {codes[i]} in row {i}, expected 0 to {num_values}"
