"""Counts of the rows that break each rule, and the rules that every snapshot file shares.

Not for what a rule means (`validation.data_gate.checks`), nor for the rules of one kind of table
(`shard_checks`, `pin_checks`).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.errors import DataContractError, HomefeedError
from pipelines.contracts.schemas import EMBEDDING_DIM, PIN_TIME, snapshot_schema
from pipelines.contracts.snapshot_files import altered_files, open_table

FILE_RULES = ("altered_files", "schema_problems", "null_values")
"""The rules that every snapshot file shares."""


@dataclass
class BrokenRows:
    """How many rows break each rule, and a phrase about the first of them.

    A rule that has not been checked has no count. A name that is not among the rules is a mistake
    in the gate's code, and every method refuses it.
    """

    rules: tuple[str, ...]
    counts: dict[str, float] = field(default_factory=dict)
    details: dict[str, str] = field(default_factory=dict)

    def add(self, rule: str, bad: Any, describe: Callable[[int], str]) -> None:
        """Count the marked rows; several calls about one rule add up.

        Raises:
            HomefeedError: there is no such rule.
        """
        self._refuse_unknown(rule)
        bad = np.atleast_1d(np.asarray(bad, dtype=bool))
        self.counts[rule] = self.counts.get(rule, 0.0) + float(bad.sum())
        if bad.any() and rule not in self.details:
            self.details[rule] = describe(int(np.argmax(bad)))

    def check_range(
        self,
        rule: str,
        values: NDArray[Any],
        column: str,
        low: float,
        high: float,
        expected: str = "",
    ) -> bool:
        """Count the values of a column outside [low, high], also NaN; return whether none is.

        Args:
            rule: The rule that they break.
            values: (rows,) of the column.
            column: Its name, for the phrase.
            low: The least value allowed.
            high: The largest value allowed.
            expected: The range in words, if not '<low> to <high>'.
        """
        is_inside = (values >= low) & (values <= high)
        expected = expected or f"{low} to {high}"
        phrase = "{} is {} in row {}, expected {}".format
        self.add(rule, ~is_inside, lambda i: phrase(column, values[i], i, expected))
        return bool(is_inside.all())

    def add_phrases(self, rule: str, phrases: list[str]) -> None:
        """Count one row for each phrase; no phrase means that the rule was checked and holds."""
        self.add(rule, np.ones(len(phrases), dtype=bool), lambda i: phrases[i])

    def has(self, *rules: str) -> bool:
        """Return whether a row is known to break one of these rules.

        Raises:
            HomefeedError: there is no such rule.
        """
        self._refuse_unknown(*rules)
        return any(self.counts.get(rule) for rule in rules)

    def count(self, rule: str) -> float:
        """Return how many rows break a rule; NaN if it has not been checked.

        Raises:
            HomefeedError: there is no such rule.
        """
        self._refuse_unknown(rule)
        return self.counts.get(rule, float("nan"))

    def _refuse_unknown(self, *rules: str) -> None:
        unknown = [rule for rule in rules if rule not in self.rules]
        if unknown:
            raise HomefeedError(
                f"the data gate counts no rows for {unknown}; expected rules of "
                f"{list(self.rules)}; correct the name in validation/data_gate, the snapshot is "
                f"not to blame"
            )


def read_tables(
    snapshot_dir: Path,
    snapshot: Snapshot,
    paths: list[str],
    broken: BrokenRows,
    embedding_dim: int = 0,
) -> dict[str, pa.Table]:
    """Return the tables of some snapshot files by name, without those that cannot be read.

    Counts the files whose content is not the manifest's, for which each is hashed once, the columns
    that break the contract, and the nulls. An altered file is not opened: its damaged bytes could
    be taken for lengths and addresses.

    Args:
        snapshot_dir: Local folder of the snapshot.
        snapshot: The manifest.
        paths: The files, below the folder.
        broken: Receives the counts.
        embedding_dim: The width that embeddings must have; 0 where it is not known, and then a
            file's own width counts.
    """
    own_files = tuple(file for file in snapshot.files if file.path in paths)
    altered = altered_files(snapshot_dir, own_files)
    broken.add_phrases("altered_files", list(altered.values()))
    broken.add_phrases("schema_problems", [])
    tables = {}
    for path in paths:
        if path in altered:
            broken.add_phrases("schema_problems", [f"{altered[path]}; it cannot be read"])
            continue
        try:
            table = open_table(snapshot_dir, path)
        except (DataContractError, pa.ArrowInvalid, OSError) as error:
            broken.add_phrases("schema_problems", [f"{path} cannot be read: {error}"])
            continue
        file = Path(path).stem
        expected = snapshot_schema(
            file,
            snapshot.features,
            embedding_dim=embedding_dim or _width_of(table),
            has_pin_times=PIN_TIME.name in table.column_names,
        )
        problems = schema_problems(table, expected)
        broken.add_phrases("schema_problems", [f"{path}: {problem}" for problem in problems])
        for name in (name for name in expected.names if name in table.column_names):
            describe = partial("{0}.{1} is null in row {2}".format, file, name)
            broken.add("null_values", table[name].is_null(), describe)
        tables[file] = table
    return tables


def _width_of(table: pa.Table) -> int:
    """Return the width of a table's embeddings; the published one where it has none of one width.

    Then the column is of another type than the contract's, whatever width that names.
    """
    if "embedding" not in table.column_names:
        return EMBEDDING_DIM
    type_ = table.schema.field("embedding").type
    return int(type_.list_size) if pa.types.is_fixed_size_list(type_) else EMBEDDING_DIM


def schema_problems(table: pa.Table, expected: pa.Schema) -> list[str]:
    """Return one phrase for each column that is missing or of another type."""
    problems = []
    for wanted in expected:
        if wanted.name not in table.column_names:
            problems.append(f"column {wanted.name} is missing")
        elif table.schema.field(wanted.name).type != wanted.type:
            found = table.schema.field(wanted.name).type
            problems.append(f"column {wanted.name} is {found}, expected {wanted.type}")
    return problems
