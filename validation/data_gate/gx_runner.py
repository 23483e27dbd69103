"""Great Expectations runs the data gate's checks over the profile's tables and writes Data Docs.

Great Expectations reports an error inside its engine as an expectation that failed. Here the two
are told apart: a check that itself broke raises an error, because nothing is then known of the
data. Not for what is expected (`validation.data_gate.checks`), nor for the look of the pages
(`validation.report.data_docs`).
"""

import contextlib
import gc
import math
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from html import escape, unescape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from pipelines.contracts.artifacts import ExpectationOutcome
from pipelines.contracts.errors import HomefeedError
from validation.data_gate.checks import Check, format_value

if TYPE_CHECKING:
    from great_expectations.data_context import AbstractDataContext

Details = Mapping[tuple[str, str], str]
"""A phrase about the first broken row, by (partition, column)."""

DOCS_SITE = "data_docs"
_MOST_PHRASES = 3


@dataclass(frozen=True)
class RunName:
    """How a run of the checks is called in the Data Docs."""

    name: str  # such as snapshot-<digest>
    as_of: datetime


@contextlib.contextmanager
def _without_collections() -> Iterator[None]:
    """Let no garbage be collected meanwhile.

    Great Expectations makes a few hundred thousand objects that stay, most of them when it is
    imported. Looking through them again and again took a fifth of its time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@_without_collections()
def evaluate(
    checks: tuple[Check, ...],
    tables: Mapping[str, pd.DataFrame],
    details: Details,
    run: RunName,
    docs_dir: Path,
) -> tuple[ExpectationOutcome, ...]:
    """Run every check with Great Expectations, build its Data Docs and return the outcomes.

    Args:
        checks: What is expected; a check with `not_judged` is listed and not run.
        tables: By name; the first column of each is `partition`.
        details: Phrases about the first broken rows.
        run: Its name in the Data Docs.
        docs_dir: Empty folder for the static site.

    Raises:
        HomefeedError: a check itself broke; nothing is known of the data.
    """
    # Read when the package is imported. Without it the package reports usage to its makers.
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    context = _make_context(docs_dir)
    outcomes = {
        check.name: _outcome(check, True, f"not judged: {check.not_judged}", is_judged=False)
        for check in checks
        if check.not_judged
    }
    for name, table in tables.items():
        chosen = [check for check in checks if check.table == name and not check.not_judged]
        if chosen:
            results = _run_suite(context, name, table, chosen, run)
            for check in chosen:
                outcomes[check.name] = _judge(check, table, results[check.name], details)
    context.build_data_docs(site_names=[DOCS_SITE])
    return tuple(outcomes[check.name] for check in checks)


def with_accepted(
    outcomes: tuple[ExpectationOutcome, ...], accepted: Mapping[str, str]
) -> tuple[ExpectationOutcome, ...]:
    """Return the outcomes with a person's word for those that are not met.

    Args:
        outcomes: As they were judged.
        accepted: Who accepted an expectation that is not met, and why, by its name.
    """
    return tuple(
        outcome
        if outcome.is_met or outcome.name not in accepted
        else outcome.model_copy(update={"accepted_by": accepted[outcome.name]})
        for outcome in outcomes
    )


def _make_context(docs_dir: Path) -> "AbstractDataContext":
    """Return a context that lives in memory, so that only the Data Docs are written to disk."""
    gx = import_great_expectations()
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False, metric_calculations=False)
    context.delete_data_docs_site("local_site")  # would leave pages in the temporary folder
    context.add_data_docs_site(
        DOCS_SITE,
        {
            "class_name": "SiteBuilder",
            "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
            "store_backend": {
                "class_name": "TupleFilesystemStoreBackend",
                "base_directory": str(docs_dir),
            },
        },
    )
    return context


def import_great_expectations() -> Any:
    """Import Great Expectations, which takes two seconds, as if PySpark were not installed.

    Nothing here is judged by Spark. Where PySpark is installed, Great Expectations imports all of
    it, and a part of that ends the process, with the exit code 0, where the main module has no
    file: in `python -c`, and in processes that a server forks.
    """
    hidden = {name: sys.modules.pop(name) for name in tuple(sys.modules) if _is_pyspark(name)}
    sys.modules["pyspark"] = None  # type: ignore[assignment]  # an import finds nothing there
    try:
        import great_expectations
    finally:
        del sys.modules["pyspark"]
        sys.modules.update(hidden)
    return great_expectations


@contextlib.contextmanager
def importing_meanwhile() -> Iterator[None]:
    """Import Great Expectations in another thread while the body measures what is to be judged.

    Measuring leaves Python's lock to others for most of its time. What goes wrong with the import
    is raised where Great Expectations is needed, which imports it again.
    """

    def work() -> None:
        with contextlib.suppress(Exception), _without_collections():
            import_great_expectations()

    thread = threading.Thread(target=work, name="importing-great-expectations")
    thread.start()
    try:
        yield
    finally:
        thread.join()


def _is_pyspark(name: str) -> bool:
    return name == "pyspark" or name.startswith("pyspark.")


def _run_suite(
    context: "AbstractDataContext",
    name: str,
    table: pd.DataFrame,
    checks: list[Check],
    run: RunName,
) -> dict[str, dict[str, Any]]:
    """Validate one table; return the result of Great Expectations by the check's name.

    Great Expectations writes text into its pages as it is, so it gets names that are escaped.
    """
    import great_expectations as gx
    from great_expectations.core.run_identifier import RunIdentifier

    suite = gx.ExpectationSuite(name=name, expectations=[_expectation(check) for check in checks])
    source = context.data_sources.add_or_update_pandas(f"profile_{name}")
    batch = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("whole")
    definition = context.validation_definitions.add(
        gx.ValidationDefinition(name=name, data=batch, suite=context.suites.add(suite))
    )
    validated = definition.run(
        batch_parameters={"dataframe": table.assign(partition=table["partition"].map(escape))},
        result_format={
            "result_format": "COMPLETE",
            "unexpected_index_column_names": ["partition"],
        },
        run_id=RunIdentifier(run_name=run.name, run_time=run.as_of),
    )
    results = {}
    for result in validated.to_json_dict()["results"]:
        check_name = result["expectation_config"]["meta"]["check"]
        _refuse_engine_error(check_name, result["exception_info"])
        results[check_name] = {"is_met": result["success"], **result["result"]}
    return results


def _expectation(check: Check) -> Any:
    """Return the check as an expectation of Great Expectations, with the severity's name there."""
    import great_expectations.expectations as gxe
    from great_expectations.expectations.metadata_types import FailureSeverity

    return gxe.ExpectColumnValuesToBeBetween(
        column=check.column,
        min_value=check.minimum,
        max_value=check.maximum,
        severity=FailureSeverity(check.severity.value),
        description=escape(f"{check.name}: {check.description}"),
        meta={"check": check.name},
    )


def _refuse_engine_error(check_name: str, exception_info: dict[str, Any]) -> None:
    """Raise if Great Expectations failed to run a check.

    The information is one entry about the whole check, or one entry for each metric.
    """
    is_one = "raised_exception" in exception_info
    for entry in (exception_info,) if is_one else exception_info.values():
        if entry["raised_exception"]:
            raise HomefeedError(
                f"the data gate's check {check_name!r} itself broke, so nothing is known of the "
                f"data: {entry['exception_message']}; expected it to run; "
                f"fix the check in validation/data_gate/checks.py, the snapshot is not to blame"
            )


def _judge(
    check: Check, table: pd.DataFrame, result: Mapping[str, Any], details: Details
) -> ExpectationOutcome:
    """Return the outcome of one check that was run.

    Great Expectations lets values that are missing, and tables that are empty, pass. Here they fail
    the check.
    """
    values = dict(zip(table["partition"], table[check.column], strict=True))
    missing = [partition for partition, value in values.items() if math.isnan(value)]
    offenders = [unescape(entry["partition"]) for entry in result.get("unexpected_index_list", [])]
    is_met = result["is_met"] and not missing and bool(values)
    observed = _observed(check, values, offenders, missing, details)
    blamed = tuple(partition for partition in values if partition in {*offenders, *missing})
    found = _outcome(check, is_met, observed, blamed)
    return found.model_copy(update={"is_unmeasured": bool(missing) and not offenders})


def _outcome(
    check: Check,
    is_met: bool,
    observed: str,
    partitions: tuple[str, ...] = (),
    is_judged: bool = True,
) -> ExpectationOutcome:
    """Return the outcome of a check, with what the check itself says."""
    return ExpectationOutcome(
        name=check.name,
        description=check.description,
        severity=check.severity,
        is_met=is_met,
        observed=observed,
        expected=check.expected,
        partitions=partitions,
        is_judged=is_judged,
    )


def _observed(
    check: Check,
    values: Mapping[str, float],
    offenders: list[str],
    missing: list[str],
    details: Details,
) -> str:
    """Return what was found, with the worst value first."""
    parts = []
    measured = {name: value for name, value in values.items() if not math.isnan(value)}
    if check.unit == "rows":
        total = sum(measured.values())
        amount = f"{total:,.0f}" if total else "none"
        parts.append(f"{amount} in {len(offenders) or len(measured)} of {len(values)} parts")
        parts += [details[name, check.column] for name in offenders[:1]]
    elif measured:
        worst = max(measured, key=lambda name: _distance(check, measured[name]))
        where = f" ({worst})" if len(values) > 1 else ""
        parts.append(f"{format_value(measured[worst], check.unit)}{where}")
        order = sorted(offenders, key=lambda name: -_distance(check, measured[name]))
        phrases = [details[key] for name in order if (key := (name, check.column)) in details]
        parts += phrases[:_MOST_PHRASES]
    if missing:
        parts.append(f"not measured in {', '.join(missing[:3])}; see the checks that failed first")
    return "; ".join(parts) or "nothing to look at"


def _distance(check: Check, value: float) -> float:
    """Return by how much a value exceeds its nearer bound; negative within the bounds."""
    above = value - check.maximum if check.maximum is not None else -math.inf
    below = check.minimum - value if check.minimum is not None else -math.inf
    return max(above, below)
