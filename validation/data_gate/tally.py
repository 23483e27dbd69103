"""Tally of broken rows by rule, and the checks that every snapshot file shares.

Not for what a rule means (`validation.data_gate.checks`) nor for one table's own rules
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
from validation.data_gate.arrow_columns import numbers, read_or_explain, schema_problems


@dataclass
class Tally:
    """Offending rows per rule, NaN until measured, and a phrase on the first offender."""

    counts: dict[str, float] = field(default_factory=dict)
    details: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, rules: Iterable[str]) -> "Tally":
        """Return a tally that has measured none of these rules yet."""
        return cls(counts=dict.fromkeys(rules, float("nan")))

    def add(self, rule: str, bad: Any, describe: Callable[[int], str]) -> None:
        """Count the marked rows; several calls on one rule add up."""
        bad = np.atleast_1d(np.asarray(bad, dtype=bool))
        before = self.counts[rule]
        self.counts[rule] = (0.0 if np.isnan(before) else before) + float(bad.sum())
        if bad.any() and rule not in self.details:
            self.details[rule] = describe(int(np.argmax(bad)))

    def add_phrases(self, rule: str, phrases: list[str]) -> None:
        """Count phrases that each name an offence; none means measured and sound."""
        self.add(rule, np.ones(len(phrases), dtype=bool), lambda i: phrases[i])


def open_checked(
    snapshot_dir: Path, relative: str, file: str, snapshot: Snapshot, tally: Tally
) -> pa.Table | None:
    """Open one file; tally what is wrong with its schema and count its nulls."""
    table, reason = read_or_explain(snapshot_dir, relative)
    if table is None:
        tally.add_phrases("schema_problems", [reason])
        return None
    expected = snapshot_schema(file, snapshot.features)
    problems = schema_problems(table, expected)
    tally.add_phrases("schema_problems", [f"{relative}: {problem}" for problem in problems])
    present = [name for name in expected.names if name in table.column_names]
    for name in present:
        is_null = np.asarray(table[name].is_null())
        tally.add("null_values", is_null, partial("{0}.{1} is null in row {2}".format, file, name))
    return table


def bad_codes(
    table: pa.Table, feature: str, num_values: int
) -> tuple[NDArray[np.bool_], Callable[[int], str]]:
    """Return which rows hold a code outside [0, values], and how to describe one."""
    codes = numbers(table, categorical_column(feature))
    return (codes < 0) | (
        codes > num_values
    ), lambda i: f"cat_{feature} is {codes[i]} in row {i}, expected 0 to {num_values}"
