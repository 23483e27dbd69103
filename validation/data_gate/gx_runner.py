"""An expectation of the data gate, and Great Expectations, which runs them and writes Data Docs.

Great Expectations reports an error inside its engine as an expectation that failed. Here the two
are told apart: a check that itself broke raises an error, because nothing is then known of the
data. Not for what is expected (`validation.data_gate.checks`, `validation.data_gate.days.gate`),
nor for the look of the pages (`validation.report.data_docs`).
"""

import math
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from html import escape, unescape
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from pipelines.contracts.artifacts import ExpectationOutcome, Severity
from pipelines.contracts.errors import HomefeedError
from validation.report.data_docs import Subject, finish_data_docs

Unit = Literal["rows", "count", "share", "change", "number", "limits", "risk"]
NAN = float("nan")
_EXPECTED = {
    "rows": "no such row",
    "limits": "within what earlier days and snapshots let expect",
    "risk": "less than what most likely harms a model",
}
_TOLD: Mapping[Unit, Callable[[float], str]] = {
    "rows": "{:,.0f}".format,
    "count": "{:,.0f}".format,
    "number": "{:.4g}".format,
    "limits": "{:.2g} times the limit".format,
    "risk": "{:.2g} times what most likely harms a model".format,
    "share": lambda value: f"{value * 100:.4g} %",
    # Rounded first, because a millionth of a percent is noise; adding 0.0 turns -0.0 into 0.
    "change": lambda value: f"{round(value * 100, 3) + 0.0:+.4g} %",
}
_DOCS_SITE = "data_docs"
_MOST_PHRASES = 3


@dataclass(frozen=True)
class Check:
    """One expectation: a value lies between two bounds, in every partition."""

    name: str
    severity: Severity
    description: str
    table: str  # The page of Great Expectations on which it stands, with others of its partitions.
    values: Mapping[str, float]  # By partition, such as a shard, a day or a head; NaN: not measured
    unit: Unit = "rows"
    minimum: float | None = None
    maximum: float | None = None
    # Why the expectation cannot be judged this time; if it says so, the expectation counts as met.
    not_judged: str = ""
    phrases: Mapping[str, str] = field(default_factory=dict)  # What is said of a partition.
    # How far a partition is from the cause: those of the lowest number are named first.
    ranks: Mapping[str, int] = field(default_factory=dict)

    @property
    def expected(self) -> str:
        """The bounds as text."""
        told = _TOLD[self.unit]
        low, high = (None if end is None else told(end) for end in (self.minimum, self.maximum))
        if self.unit in _EXPECTED:
            return _EXPECTED[self.unit]
        if low is None:
            return f"at most {high}"
        return f"at least {low}" if high is None else f"{low} to {high}"

    def excess(self, partition: str) -> float:
        """Return by how much a value exceeds its nearer bound; negative within the bounds."""
        value = self.values[partition]
        above = value - self.maximum if self.maximum is not None else -math.inf
        below = self.minimum - value if self.minimum is not None else -math.inf
        return max(above, below)

    def outcome(
        self, is_within: bool = True, offenders: tuple[str, ...] = ()
    ) -> ExpectationOutcome:
        """Return the outcome, with what was found in words, the worst value first.

        Great Expectations lets values that are missing, and tables that are empty, pass. Here they
        fail the check.

        Args:
            is_within: Whether Great Expectations found every value that there is within the bounds.
            offenders: The partitions whose value is not.
        """
        measured = [name for name, value in self.values.items() if not math.isnan(value)]
        missing = [name for name in self.values if name not in measured and not self.not_judged]
        parts = []
        if self.not_judged:
            parts.append(f"not judged: {self.not_judged}")
        elif self.unit == "rows":
            total = sum(self.values[name] for name in measured)
            where = f"in {len(offenders) or len(measured)} of {len(self.values)} parts"
            parts.append(f"{f'{total:,.0f}' if total else 'none'} {where}")
            parts += [self.phrases[name] for name in offenders[:1]]
        elif measured:
            order = sorted(
                offenders, key=lambda name: (self.ranks.get(name, 0), -self.excess(name))
            )
            worst = order[0] if order else max(measured, key=self.excess)
            where = f" ({worst})" if len(self.values) > 1 else ""
            parts.append(f"{_TOLD[self.unit](self.values[worst])}{where}")
            parts += [self.phrases[name] for name in order if name in self.phrases][:_MOST_PHRASES]
        if missing:
            named = ", ".join(missing[:3])
            parts.append(f"not measured in {named}; see the checks that failed first")
        return ExpectationOutcome(
            name=self.name,
            description=self.description,
            severity=self.severity,
            is_met=bool(self.not_judged or (is_within and self.values and not missing)),
            observed="; ".join(parts) or "nothing to look at",
            expected=self.expected,
            partitions=tuple(name for name in self.values if name in {*offenders, *missing}),
            is_judged=not self.not_judged,
            is_unmeasured=bool(missing) and not offenders,
        )


def evaluate(
    checks: tuple[Check, ...],
    run_name: str,
    as_of: datetime,
    subject: Subject,
    docs_dir: Path,
    accepted: Mapping[str, str] | None = None,
) -> tuple[ExpectationOutcome, ...]:
    """Run every check with Great Expectations, write the Data Docs and return the outcomes.

    Args:
        checks: What is expected; a check with `not_judged` is listed and not run.
        run_name: How the run is called in the Data Docs, such as snapshot-<digest>.
        as_of: When it is said to have been.
        subject: What was judged, for the overview.
        docs_dir: Empty folder for the static site.
        accepted: Who accepted an expectation though it is not met, and why, by its name.

    Raises:
        HomefeedError: a check itself broke; nothing is known of the data.
    """
    gx = import_great_expectations()
    # The context lives in memory, so that only the Data Docs are written to disk.
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = gx.data_context.types.base.ProgressBarsConfig(
        globally=False, metric_calculations=False
    )
    context.delete_data_docs_site("local_site")  # would leave pages in the temporary folder
    store = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs_dir)}
    site = {
        "class_name": "SiteBuilder",
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
        "store_backend": store,
    }
    context.add_data_docs_site(_DOCS_SITE, site)
    run_id = gx.core.run_identifier.RunIdentifier(run_name=run_name, run_time=as_of)
    tables: dict[str, list[Check]] = {}
    for check in checks:
        if not check.not_judged:
            tables.setdefault(check.table, []).append(check)
    found: dict[str, tuple[bool, tuple[str, ...]]] = {}
    for table, of_table in tables.items():
        found |= _run_suite(context, table, of_table, run_id)
    context.build_data_docs(site_names=[_DOCS_SITE])
    outcomes = tuple(check.outcome(*found.get(check.name, ())) for check in checks)
    said = accepted or {}
    outcomes = tuple(each if each.is_met
                     else each.model_copy(update={"accepted_by": said.get(each.name, "")})
                     for each in outcomes)  # fmt: skip
    finish_data_docs(docs_dir, subject, outcomes)
    return outcomes


def _run_suite(
    context: Any, name: str, checks: list[Check], run_id: Any
) -> dict[str, tuple[bool, tuple[str, ...]]]:
    """Run the checks of one table; return, by name, whether each holds, and where it does not.

    Great Expectations writes text into its pages as it is, so it gets names that are escaped.
    """
    import great_expectations as gx
    import great_expectations.expectations as gxe
    from great_expectations.expectations.metadata_types import FailureSeverity

    table = pd.DataFrame({check.name: pd.Series(check.values, dtype=float) for check in checks})
    table.insert(0, "partition", [escape(name) for name in table.index])
    expectations = [
        gxe.ExpectColumnValuesToBeBetween(
            column=check.name,
            min_value=check.minimum,
            max_value=check.maximum,
            severity=FailureSeverity(check.severity.value),
            description=escape(f"{check.name}: {check.description}"),
            meta={"check": check.name},
        )
        for check in checks
    ]
    suite = gx.ExpectationSuite(name=name, expectations=expectations)
    source = context.data_sources.add_or_update_pandas(f"profile_{name}")
    batch = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("whole")
    definition = context.validation_definitions.add(
        gx.ValidationDefinition(name=name, data=batch, suite=context.suites.add(suite))
    )
    validated = definition.run(
        batch_parameters={"dataframe": table.reset_index(drop=True)},
        result_format={"result_format": "COMPLETE", "unexpected_index_column_names": ["partition"]},
        run_id=run_id,
    )
    found = {}
    for result in validated.to_json_dict()["results"]:
        check_name, error = result["expectation_config"]["meta"]["check"], result["exception_info"]
        # The information is one entry about the whole check, or one entry for each metric.
        for entry in (error,) if "raised_exception" in error else error.values():
            if entry["raised_exception"]:
                raise HomefeedError(
                    f"the data gate's check {check_name!r} itself broke, so nothing is known of "
                    f"the data: {entry['exception_message']}; expected it to run; fix the check in "
                    f"validation/data_gate, the data are not to blame"
                )
        rows = result["result"].get("unexpected_index_list", [])
        found[check_name] = result["success"], tuple(unescape(row["partition"]) for row in rows)
    return found


def import_great_expectations() -> Any:
    """Import Great Expectations, which takes two seconds, as if PySpark were not installed.

    Nothing here is judged by Spark. Where PySpark is installed, Great Expectations imports all of
    it, and a part of that ends the process, with the exit code 0, where the main module has no
    file: in `python -c`, and in processes that a server forks.
    """
    hidden = {
        name: sys.modules.pop(name)
        for name in tuple(sys.modules)
        if name.partition(".")[0] == "pyspark"
    }
    sys.modules["pyspark"] = None  # type: ignore[assignment]  # an import finds nothing there
    os.environ["GX_ANALYTICS_ENABLED"] = "false"  # Else it reports usage to its makers.
    try:
        import great_expectations
    finally:
        del sys.modules["pyspark"]
        sys.modules.update(hidden)
    return great_expectations
