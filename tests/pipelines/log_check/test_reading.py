"""What a reader would refuse of optional and declared columns, the check of a log finds too."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.contracts.config import RunConfig
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.features.numeric import NumericFeature
from pipelines.event_log.log_files import open_event_log
from pipelines.event_log.rules import Finding
from pipelines.log_check.found import Severity
from pipelines.log_check.run import check_log
from pipelines.snapshot.pins import count_pins
from pipelines.snapshot.plan import plan_of
from pipelines.snapshot.spill import SpillSummary
from pipelines.storage import to_uri
from support.tiny_log import TINY_AS_OF, january, tiny_config, with_pin_times, write_tiny_log

PINS = "pins/part-0.parquet"
KNOWN = dict.fromkeys((10, 20, 30, 40, 50), "01 00:00")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    write_tiny_log(tmp_path / "event_log")
    return tmp_path / "event_log"


def errors(log: Path, config: RunConfig | None = None) -> dict[str, Finding]:
    problems = check_log(str(log), config).problems
    return {p.finding.rule: p.finding for p in problems if p.severity is Severity.ERROR}


def with_numbers(*names: str) -> RunConfig:
    base = tiny_config()
    numeric = tuple(NumericFeature(name=name) for name in names)
    return base.model_copy(
        update={"features": base.features.model_copy(update={"numeric": numeric})}
    )


def set_times(log: Path, values: list[Any], kind: pa.DataType) -> None:
    rows = pq.read_table(log / PINS)
    rows = rows.drop_columns("known_at").append_column("known_at", pa.array(values, kind))
    pq.write_table(rows, log / PINS)


@pytest.mark.parametrize(
    ("values", "kind", "rule"),
    [
        ([january("01 00:00") // 1000] * 5, pa.int64(), "implausible_time"),
        ([january("01 00:00")] * 4 + [None], pa.int64(), "null"),
        (["2017-01-01"] * 5, pa.string(), "wrong_kind"),
    ],
)
def test_the_pins_optional_times_are_checked_as_a_reader_checks_them(
    log: Path, values: list[Any], kind: pa.DataType, rule: str
) -> None:
    with_pin_times(log, KNOWN)
    assert errors(log, tiny_config()) == {}
    set_times(log, values, kind)
    finding = errors(log, tiny_config())[rule]
    assert (finding.table, finding.column) == ("pins", "known_at")
    event_log, plan = open_event_log(to_uri(log)), plan_of(tiny_config(), TINY_AS_OF)
    with pytest.raises(DataContractError, match="known_at"):
        count_pins(event_log, SpillSummary(pin_ids=np.array(list(KNOWN))), plan, log)


def test_pins_of_which_some_files_have_times_are_an_error(log: Path) -> None:
    rows = pq.read_table(log / PINS)
    pq.write_table(rows.slice(0, 2), log / PINS)
    later = rows.slice(2).append_column("known_at", pa.array([january("01 00:00")] * 3))
    pq.write_table(later, log / "pins/part-1.parquet")
    assert "part-0.parquet has no column 'known_at'" in errors(log)["pin_times_in_some"].message


def test_number_columns_of_the_recipe_are_asked_for(log: Path) -> None:
    config = with_numbers("impressions.price", "pins.length")
    finding = errors(log, config)["missing_column"]
    assert "(declared as features by the recipe)" in finding.problem
    for path in (*(log / "impressions").glob("*/*.parquet"), log / PINS):
        rows = pq.read_table(path, partitioning=None)
        name = "length" if "pins" in path.parts else "price"
        kind = pa.int32() if name == "length" else pa.float64()
        pq.write_table(rows.append_column(name, pa.array([1] * len(rows), kind)), path)
    assert errors(log, config) == {}
    rows = pq.read_table(path, partitioning=None)
    text = rows.set_column(rows.schema.get_field_index("length"), "length", pa.array(["1"] * 5))
    pq.write_table(text, path)
    assert errors(log, config)["wrong_kind"].column == "length"
    endless = pa.array([1.0, 2.0, float("inf"), 1.0, 1.0])
    pq.write_table(text.set_column(text.schema.get_field_index("length"), "length", endless), path)
    finding = errors(log, config)["infinite_number"]
    assert (finding.column, finding.row, finding.value) == ("length", 2, "inf")
