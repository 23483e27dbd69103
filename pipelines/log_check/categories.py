"""Counts the values of a recipe's categorical features that the recipe does not list.

Such a value has code 0, as a null has: a feature whose values are all unlisted trains a model
without saying anything, and nothing breaks. Not for the codes (`pipelines.event_log.declared`).
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.config import RunConfig
from pipelines.contracts.features.categorical import CategoricalFeature
from pipelines.event_log.rules import Finding
from pipelines.log_check.found import Problem, Severity

VALUES_KEPT = 2000
"""Distinct unlisted values of a feature that are counted at a time, the most frequent ones."""
VALUES_NAMED = 5


@dataclass
class Unlisted:
    """What the rows have in the column of one categorical feature."""

    rows: int = 0
    nulls: int = 0
    others: int = 0  # rows with a value that the recipe does not list
    values: Counter[str] = field(default_factory=Counter)  # of the others, most frequent ones

    def add(self, other: "Unlisted") -> None:
        """Add what some more rows have."""
        self.rows += other.rows
        self.nulls += other.nulls
        self.others += other.others
        self.values.update(other.values)
        if len(self.values) > VALUES_KEPT:
            self.values = Counter(dict(self.values.most_common(VALUES_KEPT)))


Counts = dict[str, Unlisted]
"""By `<table>.<feature>`."""


def add_counts(total: Counts, part: Counts) -> None:
    """Add the counts of some rows to those of others."""
    for name, found in part.items():
        total.setdefault(name, Unlisted()).add(found)


def count_unlisted(rows: pa.Table, feature: CategoricalFeature) -> Unlisted:
    """Count a batch's values of a feature; the column is of texts or of whole numbers."""
    column = rows[feature.name].combine_chunks()
    found = Unlisted(len(rows), column.null_count)
    counted = pc.value_counts(column)
    values, numbers = counted.field("values").cast(pa.string()), counted.field("counts")
    is_listed = pc.is_in(values, value_set=pa.array(feature.values, pa.string()))
    is_other = pc.and_(pc.invert(is_listed), values.is_valid())
    others = pa.table({"value": values, "rows": numbers}).filter(is_other)
    found.others = pc.sum(others["rows"]).as_py() or 0
    if len(others) > VALUES_KEPT:
        others = others.take(
            pc.select_k_unstable(others, VALUES_KEPT, sort_keys=[("rows", "descending")])
        )
    found.values = Counter(
        dict(zip(others["value"].to_pylist(), others["rows"].to_pylist(), strict=True))
    )
    return found


def judge_categories(counts: Counts, recipe: RunConfig) -> Iterator[Problem]:
    """Yield the features with unlisted values: an error where no row has a listed one."""
    bound = recipe.data_gate.max_unknown_category_share
    for feature in recipe.features.categorical:
        found = counts.get(f"{feature.table}.{feature.name}", Unlisted())
        num_unknown = found.nulls + found.others
        if not num_unknown:
            continue
        severity = Severity.WARNING if num_unknown > bound * found.rows else Severity.NOTE
        severity = Severity.ERROR if num_unknown == found.rows else severity
        yield Problem(severity, _finding(feature, found, bound))


def _finding(feature: CategoricalFeature, found: Unlisted, bound: float) -> Finding:
    """Return what is said of a feature's unlisted values and of its nulls."""
    name = f"{feature.table}.{feature.name}"
    said, remedies = [], []
    if found.others:
        # A value that was dropped for a while may have more rows than its count says.
        about = "about " if len(found.values) >= VALUES_KEPT else ""
        often = sorted(found.values.items(), key=lambda each: (-each[1], each[0]))
        named = ", ".join(f"{value[:60]!r} {about}{rows:,}" for value, rows in often[:VALUES_NAMED])
        more = " and others" if len(often) > VALUES_NAMED else ""
        said.append(
            f"{_share(found.others, found.rows)} of the {found.rows:,} rows have a value that the "
            f"recipe does not list: {named}{more}"
        )
        remedies.append("add them to the feature's values, or correct the values in the log")
    if found.nulls:
        said.append(f"{_share(found.nulls, found.rows)} of the {found.rows:,} rows have a null")
        remedies.append("write a value in place of null where it is known")
    shown = ", ".join(map(repr, feature.values[:VALUES_NAMED]))
    more = f" and {len(feature.values) - VALUES_NAMED} more"
    return Finding(
        "unlisted_values",
        "",
        f"{name}: {'; '.join(said)}",
        f"values of features.categorical ({shown}{more if feature.values[VALUES_NAMED:] else ''}) "
        f"in at least {1 - bound:.0%} of the rows, because a model cannot tell others apart",
        "; ".join(remedies),
        table=feature.table,
        column=feature.name,
        num_rows=found.nulls + found.others,
    )


def _share(part: int, whole: int) -> str:
    """Return a share in percent; one that is neither none nor all is never told as such."""
    share = 100 * part / whole
    if part == whole or 1 <= share <= 99:
        return f"{share:.0f}%"
    return "less than 0.01%" if share < 0.01 else f"{min(share, 99.99):.2f}%"
